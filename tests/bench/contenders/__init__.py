"""The proxies under measurement. Each file knows how one is started, and how to find out that it did its work."""

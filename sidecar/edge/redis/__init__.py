"""The store on Redis: one script per request, Redis's clock, one hash slot."""

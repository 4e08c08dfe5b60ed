"""Dashboard, alerts and metrics on a real Prometheus that watches a real sidecar."""

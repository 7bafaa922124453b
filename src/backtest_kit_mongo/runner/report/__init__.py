"""Reports of finished runs: statistics, JSON, and an HTML page with charts."""

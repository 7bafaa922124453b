"""What finished runs amount to: statistics, JSON, and a page with charts."""

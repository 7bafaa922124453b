"""Loading what a user brings as files: a strategy file, its parameters, a project's configuration."""

"""Loading the user's files: a strategy file, its parameters, a project's configuration."""

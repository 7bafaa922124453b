"""What you call: the contract of each domain, its adapter and instance, and the registries that bind them to stores."""

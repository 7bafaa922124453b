"""What users call: the contract of each domain, its adapters and instances, and the registries that bind them to stores."""

"""What the integrations with AWS share: clients, error translation, names, and delivery in batches."""

"""Real pipelines, deployed by template.yaml."""

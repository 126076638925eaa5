"""What the integrations tell a deployment, in CloudFormation's words. Nothing of it is imported in Lambda."""

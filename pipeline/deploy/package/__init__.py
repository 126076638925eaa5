"""A Lambda function's artifact: locked dependencies, the project's code, and nothing else."""

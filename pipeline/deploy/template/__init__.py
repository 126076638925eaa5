"""The SAM template that the declared pipelines ask for, as text, and beside what people wrote into it."""

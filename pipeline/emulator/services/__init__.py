"""AWS services in memory: models with the real services' limits and errors, and a clock that is passed in.

Pure: a call is a function of the model, its parameters and the time. The parameters and answers are those of botocore's
clients, so that whatever calls a service calls the model; `client` is the front. Differences of other stand-ins from AWS
are listed in `docs/emulator.md`.
"""

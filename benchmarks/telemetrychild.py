"""A function's start with OpenTelemetry in one of several states, in this process: CPU until its first invocation has ended.

It imports little, because what it imports is no longer imported by what it measures.
"""

import time

INTERPRETER = time.process_time()


class Blocked:
    """As if it were not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def set_up():
    """What a user does at the start of a module: the SDK, and an exporter of OTLP."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    provider = TracerProvider(sampler=ALWAYS_OFF)  # so that nothing is sent: nobody is there
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def ours():
    """The package, and the first invocation of a function without a service."""
    from pipeline import Pipeline, sources

    @Pipeline("shop", idempotency=None).handler(sources.SQS("orders"))
    async def price(order: dict) -> None:
        pass

    return price


def main(states):
    """CPU milliseconds, with how many modules of OpenTelemetry are loaded, on the last line of standard output."""
    import json
    import sys

    event = json.load(sys.stdin)

    class Context:
        function_name = "orders"
        invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders"
        aws_request_id = "0f0e0d0c-0b0a-4908-8706-050403020100"

        def get_remaining_time_in_millis(self):
            return 900_000

    sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115 - for what the function logs
    begun = time.process_time()
    if "blocked" in states:
        sys.meta_path.insert(0, Blocked)
    if "api" in states:
        import opentelemetry.trace  # noqa: F401
    if "set up" in states:
        set_up()
    if "ours" in states:
        assert ours()(event, Context()) == {"batchItemFailures": []}
    done = time.process_time()
    loaded = sum(name.partition(".")[0] == "opentelemetry" for name in sys.modules)
    print(json.dumps([(done - begun + INTERPRETER) * 1000, loaded]), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])

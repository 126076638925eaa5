"""One cold start, in this process: what `python -m benchmarks coldstart` starts again and again.

It imports little, because what it imports is no longer imported by the function that it measures. The first line reads
the clock: until then there was only the interpreter.
"""

import time

INTERPRETER = time.process_time()


class Context:
    """Lambda's context object, as far as the functions read it."""

    function_name = "orders"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders"
    aws_request_id = "0f0e0d0c-0b0a-4908-8706-050403020100"

    def get_remaining_time_in_millis(self):
        return 900_000


def main(module, parts):
    """CPU milliseconds of each phase, on the last line of standard output; all threads count."""
    import gc
    import importlib
    import json
    import resource
    import sys

    one, ten = json.load(sys.stdin)
    sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115 - for what the function logs; it is formatted and written
    found = None
    if parts:
        from benchmarks.coldparts import watch

        found = watch()
    begun = time.process_time()
    shop = importlib.import_module(module)
    defined = time.process_time()
    assert shop.handler(one, Context()) == {"batchItemFailures": []}
    invoked = time.process_time()
    modules = len(sys.modules)
    collected = [generation["collections"] for generation in gc.get_stats()]
    parts = found() if found else {}
    assert shop.handler(ten, Context()) == {"batchItemFailures": []}
    done = {
        "interpreter": INTERPRETER,
        "import": shop.IMPORTED - begun,
        "init": defined - shop.IMPORTED,
        "first": invoked - defined,
        "start": INTERPRETER + invoked - begun,
        "second": time.process_time() - invoked,
    }
    done = {name: seconds * 1000 for name, seconds in done.items()}
    done |= {"modules": modules, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps({**done, "collections": collected, "parts": parts}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    import sys

    main(sys.argv[1], sys.argv[2:] == ["parts"])

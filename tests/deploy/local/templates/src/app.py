"""What the templates beside it name as their handler. It is only looked for, never run."""


def lambda_handler(event: object, context: object) -> None: ...

"""One handler's function in a template: its role, its log, its mapping and its alarms."""

from __future__ import annotations

import inspect
import math
import sys
from typing import Any

from msgspec import structs

from pipeline.aws.cloudformation.stack import Grant, Reader, Stack, logical_id, skip_checks
from pipeline.aws.cloudformation.values import Att, Noted, Ref, Sub, inside
from pipeline.aws.names import VARIABLE
from pipeline.deploy.template import alarms
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.handler import Handler

#: The name of a function's event, and of the alias that a canary needs.
_EVENT, _ALIAS = "Source", "live"
#: The variable by which some batches are logged at DEBUG, which Lambda must let through.
_SAMPLED = "POWERTOOLS_LOGGER_SAMPLE_RATE"
#: Lambda's limit for all variables of a function; what a name of AWS's may add to our own is estimated.
_MAX_ENVIRONMENT = 4_096
_REFERENCE_BYTES = 140
_SKIPPED = {
    "CKV_AWS_115": "No reserved concurrency: its throttling sends healthy messages to the dead letters. A mapping can have a maximum.",
    "CKV_AWS_116": "Only asynchronous invocations use a function's own dead-letter queue; a mapping uses the source's.",
    "CKV_AWS_117": "No VPC: AWS's services are reached over TLS. Code that needs one has it added by hand.",
    "CKV_AWS_173": "The variables hold names of resources, and no secret.",
}
#: Fields of the log's lines that CloudWatch Logs keeps an index of, beside `traceId`, which it always does: `pipeline trace`
#: looks for them, and pays for what it reads. An index costs nothing; a policy has up to 20 fields.
_INDEXED = ("record_id", "caused_by")
_LOG_SKIPPED = {
    "CKV_AWS_158": "Encrypted by CloudWatch Logs; payloads are logged only where the code asks for it (log_payloads).",
}


class Deployed:
    """A stage as a function."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name = logical_id(f"{stage.pipeline}-{stage.name.replace('_', '-')}", "Function")
        self.path = _path(stage)
        self.role, self.log = f"{self.name}Role", f"{self.name}Log"
        self._properties: dict[str, Any] = {}
        self._statements: list[Any] = []
        if not hasattr(stage.source, "event"):
            raise ConfigurationError(
                f"{stage.full_name}: {type(stage.source).__name__} is a source of your own, which no event source "
                "mapping reads: it cannot be deployed to Lambda"
            )

    @property
    def title(self) -> str:
        """From where to where."""
        sinks = ", ".join(sink.name for sink in self.stage.sinks) or "no sink"
        return f"{self.stage.source.name} -> {sinks}"

    def declare_source(self, stack: Stack) -> None:
        """Add what the source needs."""
        reader = Reader(
            function=self.name,
            mapping=f"{self.name}{_EVENT}",
            timeout=self.stage.deploy.timeout,
            retrying=_retrying(self.stage),
        )
        source: Any = self.stage.source
        source.declare(stack, reader)

    def add(self, stack: Stack) -> None:
        """Add function, log and role; `complete` fills them, when everything has its name."""
        metadata = {
            "BuildMethod": Noted(
                "makefile", f"The target build-{self.name} of the Makefile, which runs `pipeline package`."
            ),
            **skip_checks(_SKIPPED),
        }
        stack.add(self.name, "AWS::Serverless::Function", self._properties, attributes={"Metadata": metadata})
        stack.add(
            self.log,
            "AWS::Logs::LogGroup",
            {"RetentionInDays": Ref("LogRetentionDays"), "FieldIndexPolicies": [{"Fields": list(_INDEXED)}]},
            attributes={
                "DeletionPolicy": "Delete",
                "UpdateReplacePolicy": "Delete",
                "Metadata": skip_checks(_LOG_SKIPPED),
            },
        )
        policy = {"Version": "2012-10-17", "Statement": self._statements}
        stack.add(
            self.role,
            "AWS::IAM::Role",
            {
                "AssumeRolePolicyDocument": _trust("lambda.amazonaws.com"),
                "Policies": [{"PolicyName": self._policy_name(), "PolicyDocument": policy}],
            },
            why="Written out, because the role that SAM makes has managed policies for every resource.",
        )

    def _policy_name(self) -> str:
        """Python takes more letters than IAM."""
        return self.stage.name if self.stage.name.isascii() else self.name

    def grants(self) -> list[Grant]:
        """What the function may do, beside writing its log."""
        stage = self.stage
        source: Any = stage.source
        store: Any = stage.store
        found = source.grants(delays=stage.retry is not None)
        found += _grants(stage.dead_letters)
        if store is not None and hasattr(store, "grants"):
            # The entry of a stream's dead letter stays: its record comes back with what stands before it.
            found += store.grants(forgets=not stage.source.is_stream, mode=type(stage.mode).__name__.lower())
        for sink in stage.sinks:
            found += _fused_grants(sink) if sink.name == stage.fused else _grants(sink)
        return _merged(found)

    def complete(self, stack: Stack, *, layer: Ref | None) -> None:
        """Fill in the function and its policy."""
        stage, function = self.stage, self.stage.deploy
        grants = self.grants()
        source: Any = stage.source
        event = source.event(stack)
        self._properties |= {
            "Description": _description(stage),
            "Handler": self.path,
            "Timeout": Noted(
                function.timeout, f"As declared: Function(timeout={function.timeout}, memory={function.memory})."
            ),
            "MemorySize": function.memory,
            "Role": Att(self.role),
            **({"Layers": [layer]} if layer else {}),
            "LoggingConfig": {
                "LogFormat": "JSON",
                "ApplicationLogLevel": Noted(
                    "DEBUG" if stage.log_level == "DEBUG" or _SAMPLED in function.environment else "INFO",
                    "Not above INFO: metrics are lines without a level, and Lambda would drop them. The code has a level.",
                ),
                "LogGroup": Ref(self.log),
            },
            "Tags": {"pipeline": stage.pipeline},
            "Environment": {"Variables": self._variables(grants, stack)},
            "Events": {_EVENT: {"Type": event.kind, "Properties": event.properties}},
        }
        self._statements += [_statement(grant, sid, stack) for grant, sid in zip(grants, _sids(grants), strict=True)]
        write = ["logs:CreateLogStream", "logs:PutLogEvents"]
        self._statements.append({"Sid": "WriteItsLog", "Effect": "Allow", "Action": write, "Resource": Att(self.log)})
        if function.canary is not None:
            self._add_canary(function.canary, stack)

    def watch(self, stack: Stack) -> None:
        """Add the alarms: Lambda's own, and the toolkit's, because failed records are no errors of a function."""
        alarms.watch_function(self.stage, self.name, stack)
        alarms.watch_records(self.stage, self.name, stack)
        alarms.draw(self.stage, self.name, stack)
        if self.stage.deploy.canary is not None:
            alarms.watch_canary(self.stage, self.name, stack)

    def _variables(self, grants: list[Grant], stack: Stack) -> dict[str, Any]:
        """Where the code finds what it uses. Every function gets only its own: Lambda takes 4 KB for all variables."""
        used = {grant.resource for grant in grants if not grant.is_for_lambda}
        names = {
            f"{resource.service}:{resource.name}": reference
            for resource in sorted(used, key=lambda one: (one.service, one.name))
            if (reference := stack.reference(resource)) is not None
        }
        given = dict(self.stage.deploy.environment)
        size = sum(len(name) + _REFERENCE_BYTES for name in names) + len(
            "".join(f"{name}{text}" for name, text in given.items()).encode()
        )
        if size > _MAX_ENVIRONMENT:
            raise ConfigurationError(
                f"{self.stage.full_name}: its variables take about {size:,} bytes, and Lambda takes {_MAX_ENVIRONMENT:,}: "
                "use fewer sinks in one handler, or less Function(environment=)"
            )
        if not names:
            return given
        lines = ",\n".join(f'"{name}": "{inside(reference)}"' for name, reference in names.items())
        return {VARIABLE: Sub(f"{{{lines}}}"), **given}

    def _add_canary(self, kind: str, stack: Stack) -> None:
        """Shift traffic step by step, and back when an alarm rings."""
        role = f"{self.name}DeploymentRole"
        watched = [f"{self.name}Errors", f"{self.name}Canary"]
        self._properties |= {
            "AutoPublishAlias": _ALIAS,
            "AutoPublishAliasAllProperties": Noted(
                True,
                "Otherwise a new timeout, runtime or layer would publish no version, and the alias keep the old one.",
            ),
            "DeploymentPreference": {"Type": kind, "Role": Att(role), "Alarms": [Ref(name) for name in watched]},
        }
        # Actions on an alias are allowed, or not, for the function's ARN (service authorization reference of Lambda).
        alias = [Att(self.name), Sub(f"${{{self.name}.Arn}}:{_ALIAS}")]
        shift = ["lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"]
        statements = [
            {"Sid": "ShiftTraffic", "Effect": "Allow", "Action": shift, "Resource": alias},
            {
                "Sid": "SeeAlarms",
                "Effect": "Allow",
                "Action": "cloudwatch:DescribeAlarms",
                "Resource": [Att(name) for name in watched],
            },
        ]
        policy = {"PolicyName": "shift", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
        trust = _trust("codedeploy.amazonaws.com")
        stack.add(role, "AWS::IAM::Role", {"AssumeRolePolicyDocument": trust, "Policies": [policy]})


def first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (inspect.cleandoc(text or "").splitlines() or [""])[0].strip()


def _path(stage: Stage) -> str:
    """`package.module.handler`, by which Lambda finds the entry point."""
    module, name = stage.function.__module__, stage.name
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, Handler) or found.stage.full_name != stage.full_name:
        raise ConfigurationError(
            f"{stage.full_name}: Lambda looks for '{module}.{name}', and that is not this handler: declare handlers at "
            "the top of a module, and give the name to nothing else"
        )
    return f"{module}.{name}"


def _description(stage: Stage) -> str:
    """The first line of the function's docstring, else from where to where; Lambda takes 256 characters."""
    text = first_line(stage.function.__doc__) or f"{stage.full_name}: records from {stage.source.name}"
    return text[:256]


def _retrying(stage: Stage) -> int:
    """Seconds that the longest delays of all retries add up to."""
    if stage.retry is None:
        return 0
    return math.ceil(sum(stage.retry.delay(attempt, 1.0) for attempt in range(1, min(stage.retry.attempts, 1_000))))


def _trust(service: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _fused_grants(sink: Any) -> list[Grant]:
    """What a sink needs that writes marks with its outputs."""
    found: list[Grant] = sink.grants(fused=True) if hasattr(sink, "grants") else []
    return found


def _grants(thing: Any) -> list[Grant]:
    grants = getattr(thing, "grants", None)
    return [] if grants is None else list(grants())


def _merged(grants: list[Grant]) -> list[Grant]:
    """One grant for each purpose and resource: a sink may also be the place for rejected records.

    What is written there with marks and what is written without needs an action each.
    """
    merged: dict[Any, Grant] = {}
    for grant in grants:
        known = merged.setdefault((grant.to, grant.resource, grant.within), grant)
        actions = tuple(dict.fromkeys((*known.actions, *grant.actions)))
        merged[grant.to, grant.resource, grant.within] = structs.replace(known, actions=actions)
    return list(merged.values())


def _sids(grants: list[Grant]) -> list[str]:
    """A Sid for each: IAM takes letters and digits, and none twice in a policy."""
    plain = [logical_id(f"{grant.to}-{grant.resource.name}", "") for grant in grants]
    precise = [
        sid if plain.count(sid) == 1 else sid + logical_id(grant.resource.service, "")
        for grant, sid in zip(grants, plain, strict=True)
    ]
    return [
        sid if precise.count(sid) == 1 else f"{sid}{precise[:position].count(sid) + 1}"
        for position, sid in enumerate(precise)
    ]


def _statement(grant: Grant, sid: str, stack: Stack) -> dict[str, Any]:
    actions: Any = list(grant.actions)
    arn = stack.arn(grant.resource)
    statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": Noted(actions, grant.why) if grant.why else actions,
        "Resource": _below(arn, grant.within) if grant.within else arn,
    }
    if grant.is_global_name and grant.resource.existing is None:
        statement["Condition"] = Noted(
            {"StringEquals": {"s3:ResourceAccount": Ref("AWS::AccountId")}},
            "The ARN names no account, and the name is free once the bucket is deleted: it must still be ours.",
        )
    return statement


def _below(arn: Any, within: str) -> Any:
    return f"{arn}{within}" if isinstance(arn, str) else Sub(f"{inside(arn)}{within}")

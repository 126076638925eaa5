"""Reads a SAM or CloudFormation template as something to run on this machine.

`project.read` brings it together: the linter's model shows what stands in the template, `intrinsics` works values out,
`names` says what things are called here, `resources`, `functions` and `mappings` are what comes out. `making` makes the
resources on an endpoint.
"""

from pipeline.deploy.local.functions import LocalFunction
from pipeline.deploy.local.making import Made, make
from pipeline.deploy.local.mappings import LocalMapping
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.problems import Problem
from pipeline.deploy.local.project import Project, read

__all__ = ["LocalFunction", "LocalMapping", "Made", "Names", "Problem", "Project", "make", "read"]

"""Prices of us-east-1 in US dollars, without the free tier and before any discount for volume.

Source: the AWS Price List API, offers AWSLambda (published 2026-09-19) and AmazonDynamoDB (on demand, fetched
2026-09-29), as others transcribed it and not asked again here: check them against AWS's calculator before a decision.
"""

from __future__ import annotations

#: One request of a Lambda function.
LAMBDA_REQUEST = 0.20 / 1e6
#: A GB-second of a function on x86, the first six billion of a month.
LAMBDA_GB_SECOND = 0.0000166667
#: DynamoDB on demand: one write request unit, one read request unit.
WRITE_UNIT = 0.625 / 1e6
READ_UNIT = 0.125 / 1e6

#: A GB of log that CloudWatch Logs takes in, class Standard, the first 10 TB of a month; storage is not in it.
LOG_GB = 0.50

#: Lambda gives a function one whole core at this size (AWS Lambda quotas), as the process that is measured has one.
MEMORY_MB = 1_769

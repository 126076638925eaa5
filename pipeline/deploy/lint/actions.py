"""Names of actions in policies, of the services that handlers read and write."""

from __future__ import annotations

from difflib import get_close_matches

# AWS Service Authorization Reference, as cfn-lint 1.58 has it (2026-10). What is like none of these is not judged, so
# that an action that AWS adds is no finding.
_NAMES = {
    "sqs": (
        "AddPermission CancelMessageMoveTask ChangeMessageVisibility CreateQueue DeleteMessage DeleteQueue "
        "GetQueueAttributes GetQueueUrl ListDeadLetterSourceQueues ListMessageMoveTasks ListQueues ListQueueTags "
        "PurgeQueue ReceiveMessage RemovePermission SendMessage SetQueueAttributes StartMessageMoveTask TagQueue "
        "UntagQueue"
    ),
    "kinesis": (
        "AddTagsToStream AssociateStreamsWithChannel CreateChannel CreateStream DecreaseStreamRetentionPeriod "
        "DeleteChannel DeleteResourcePolicy DeleteStream DeregisterStreamConsumer DescribeAccountSettings "
        "DescribeChannel DescribeLimits DescribeStream DescribeStreamConsumer DescribeStreamSummary "
        "DisableEnhancedMonitoring EnableEnhancedMonitoring GetRecords GetResourcePolicy GetShardIterator "
        "IncreaseStreamRetentionPeriod InjectApiError ListChannels ListShards ListStreamConsumers ListStreams "
        "ListTagsForResource ListTagsForStream MergeShards PutRecord PutRecords PutResourcePolicy "
        "RegisterStreamConsumer RemoveTagsFromStream SplitShard StartStreamEncryption StopStreamEncryption "
        "SubscribeToShard TagResource UntagResource UpdateAccountSettings UpdateChannel UpdateMaxRecordSize "
        "UpdateShardCount UpdateStreamMode UpdateStreamRecordDistributionStrategy UpdateStreamWarmThroughput"
    ),
    "dynamodb": (
        "AssociateTableReplica BatchGetItem BatchWriteItem ConditionCheckItem CreateBackup CreateGlobalTable "
        "CreateGlobalTableWitness CreateTable CreateTableReplica DeleteBackup DeleteGlobalTableWitness DeleteItem "
        "DeleteResourcePolicy DeleteTable DeleteTableReplica DescribeBackup DescribeContinuousBackups "
        "DescribeContributorInsights DescribeEndpoints DescribeExport DescribeGlobalTable "
        "DescribeGlobalTableSettings DescribeImport DescribeKinesisStreamingDestination DescribeLimits "
        "DescribeReservedCapacity DescribeReservedCapacityOfferings DescribeStream DescribeTable "
        "DescribeTableReplicaAutoScaling DescribeTimeToLive DisableKinesisStreamingDestination "
        "EnableKinesisStreamingDestination ExportTableToPointInTime GetAbacStatus GetItem GetRecords "
        "GetResourcePolicy GetShardIterator ImportTable InjectError ListBackups ListContributorInsights ListExports "
        "ListGlobalTables ListImports ListStreams ListTables ListTagsOfResource PartiQLDelete PartiQLInsert "
        "PartiQLSelect PartiQLUpdate PurchaseReservedCapacityOfferings PutItem PutResourcePolicy Query "
        "ReadDataForReplication ReplicateSettings RestoreTableFromAwsBackup RestoreTableFromBackup "
        "RestoreTableToPointInTime Scan SearchVectors StartAwsBackupJob TagResource UntagResource UpdateAbacStatus "
        "UpdateContinuousBackups UpdateContributorInsights UpdateGlobalTable UpdateGlobalTableSettings "
        "UpdateGlobalTableVersion UpdateItem UpdateKinesisStreamingDestination UpdateTable "
        "UpdateTableReplicaAutoScaling UpdateTimeToLive WriteDataForReplication"
    ),
    "sns": (
        "AddPermission CheckIfPhoneNumberIsOptedOut ConfirmSubscription CreatePlatformApplication "
        "CreatePlatformEndpoint CreateSMSSandboxPhoneNumber CreateTopic DeleteEndpoint DeletePlatformApplication "
        "DeleteSMSSandboxPhoneNumber DeleteTopic GetDataProtectionPolicy GetEndpointAttributes "
        "GetPlatformApplicationAttributes GetSMSAttributes GetSMSSandboxAccountStatus GetSubscriptionAttributes "
        "GetTopicAttributes ListEndpointsByPlatformApplication ListOriginationNumbers ListPhoneNumbersOptedOut "
        "ListPlatformApplications ListSMSSandboxPhoneNumbers ListSubscriptions ListSubscriptionsByTopic "
        "ListTagsForResource ListTopics OptInPhoneNumber Publish PutDataProtectionPolicy RemovePermission "
        "SetEndpointAttributes SetPlatformApplicationAttributes SetSMSAttributes SetSubscriptionAttributes "
        "SetTopicAttributes Subscribe TagResource Unsubscribe UntagResource VerifySMSSandboxPhoneNumber"
    ),
}

#: Calls that are no actions, or names that are often taken for one, and what to allow for them.
_OTHERWISE: dict[str, tuple[str, ...]] = {
    "sqs:SendMessageBatch": ("sqs:SendMessage",),
    "sqs:DeleteMessageBatch": ("sqs:DeleteMessage",),
    "sqs:ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
    "sns:PublishBatch": ("sns:Publish",),
    "dynamodb:TransactGetItems": ("dynamodb:GetItem",),
    "dynamodb:TransactWriteItems": ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"),
    "dynamodb:ExecuteStatement": ("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"),
    "dynamodb:BatchExecuteStatement": ("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"),
    "dynamodb:ExecuteTransaction": ("dynamodb:PartiQLSelect", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate"),
    "s3:HeadObject": ("s3:GetObject",),
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:ListObjects": ("s3:ListBucket",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:ListBuckets": ("s3:ListAllMyBuckets",),
    "s3:CopyObject": ("s3:GetObject", "s3:PutObject"),
    "s3:UploadPart": ("s3:PutObject",),
    "s3:CreateMultipartUpload": ("s3:PutObject",),
    "s3:CompleteMultipartUpload": ("s3:PutObject",),
    "s3:DeleteObjects": ("s3:DeleteObject",),
    "events:PutEvent": ("events:PutEvents",),
    "lambda:Invoke": ("lambda:InvokeFunction",),
}

#: Actions on whatever is there: AWS takes no other resource than "*" for them. Of other services none is judged.
_WITHOUT_RESOURCE = {
    "sqs": "ListQueues",
    "kinesis": (
        "DescribeAccountSettings DescribeLimits DisableEnhancedMonitoring EnableEnhancedMonitoring InjectApiError "
        "ListChannels ListStreams UpdateAccountSettings UpdateShardCount UpdateStreamMode"
    ),
    "dynamodb": (
        "DescribeEndpoints DescribeLimits DescribeReservedCapacity DescribeReservedCapacityOfferings GetAbacStatus "
        "InjectError ListBackups ListContributorInsights ListGlobalTables ListStreams ListTables "
        "PurchaseReservedCapacityOfferings UpdateAbacStatus"
    ),
    # Publish: a text message to a telephone has no topic.
    "sns": (
        "CheckIfPhoneNumberIsOptedOut CreatePlatformApplication CreatePlatformEndpoint CreateSMSSandboxPhoneNumber "
        "DeleteEndpoint DeletePlatformApplication DeleteSMSSandboxPhoneNumber GetEndpointAttributes "
        "GetPlatformApplicationAttributes GetSMSAttributes GetSMSSandboxAccountStatus "
        "ListEndpointsByPlatformApplication ListOriginationNumbers ListPhoneNumbersOptedOut ListPlatformApplications "
        "ListSMSSandboxPhoneNumbers ListSubscriptions ListTopics OptInPhoneNumber Publish SetEndpointAttributes "
        "SetPlatformApplicationAttributes SetSMSAttributes VerifySMSSandboxPhoneNumber"
    ),
    "events": (
        "ListApiDestinations ListArchives ListConnections ListEndpoints ListEventBuses ListEventSources "
        "ListPartnerEventSources ListReplays ListRuleNamesByTarget ListRules PutPartnerEvents PutPermission "
        "RemovePermission TestEventPattern"
    ),
    "firehose": "ListDeliveryStreams",
    "states": (
        "InvokeHTTPEndpoint ListActivities ListStateMachines RevealSecrets SendTaskFailure SendTaskHeartbeat "
        "SendTaskSuccess TestState ValidateStateMachineDefinition"
    ),
    "lambda": (
        "CreateCodeSigningConfig CreateEventSourceMapping DeleteEventSourceMapping GetAccountSettings "
        "GetEventSourceMapping ListCodeSigningConfigs ListEventSourceMappings ListFunctions ListLayers "
        "ListLayerVersions UpdateEventSourceMapping"
    ),
    "s3": (
        "CreateJob CreateStorageLensGroup GetAccessPoint GetAccountPublicAccessBlock ListAccessGrantsInstances "
        "ListAccessPoints ListAccessPointsForObjectLambda ListAllMyBuckets ListJobs ListMultiRegionAccessPoints "
        "ListStorageLensConfigurations ListStorageLensGroups PutAccessPointPublicAccessBlock "
        "PutAccountPublicAccessBlock PutStorageLensConfiguration"
    ),
}

_KNOWN = {service: {name.lower(): name for name in names.split()} for service, names in _NAMES.items()}
_ALTERNATIVES = {name.lower(): instead for name, instead in _OTHERWISE.items()}
_ANYWHERE = {service: {name.lower() for name in names.split()} for service, names in _WITHOUT_RESOURCE.items()}


def instead_of(action: str) -> tuple[str, ...]:
    """What to allow in the place of an action that does not exist; nothing for one that does, or may."""
    service, _, name = action.lower().partition(":")
    found = _ALTERNATIVES.get(f"{service}:{name}")
    if found is not None:
        return found
    known = _KNOWN.get(service)
    if known is None or not name or name in known or "*" in name or "?" in name:
        return ()
    close = get_close_matches(name, known, n=1, cutoff=0.85)
    return (f"{service}:{known[close[0]]}",) if close else ()


def is_narrowable(action: str) -> bool:
    """Whether an action, or a pattern of actions, is of a service that is judged here and can name what it is about."""
    service, _, name = action.lower().partition(":")
    return service in _ANYWHERE and name not in _ANYWHERE[service]

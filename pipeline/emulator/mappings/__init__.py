"""Event source mappings as state machines: what AWS decides between a source and a function, and nothing else.

Pure: no clock, no loop, no I/O. A machine is told what happened and when, and says what is to be done; a driver does it,
in real time over a server or in virtual time in memory. The kinds: `queue` (standard and FIFO), `stream` (Kinesis and
DynamoDB) and `kafka`. Every rule has a test that names its source; what AWS does not document stands in
`docs/emulator.md`, with what was chosen.
"""

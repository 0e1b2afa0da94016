"""Every bound of hiss, in one place, with the relations between them.

A bound that is hit gives a named error or back-pressure, never growth. Units are last in the names. Operators change
those that `hiss.toml` names; code reads them from here or gets them passed in.
"""

from __future__ import annotations

from typing import Final

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30

# Names and descriptions
NAME_CHARS_MAX: Final = 128  # one part of a path
PATH_CHARS_MAX: Final = 512
PATH_PARTS_MAX: Final = 16
ATTRS_BYTES_MAX: Final = 256 * KiB  # attributes of a stream or collection, as JSON
COLUMNS_MAX: Final = 64
RANK_MAX: Final = 8  # dimensions of a block
EXPECTED_STREAMS_MAX: Final = 10_000

# Blocks and extents
BLOCK_BYTES_MAX: Final = 256 * MiB
EXTENT_BYTES_TARGET: Final = 8 * MiB  # the client closes an extent at this size; one block may be larger
EXTENT_BLOCKS_MAX: Final = 4096
DIRECT_BYTES: Final = 256 * KiB  # up to here handing an extent to another thread takes longer than writing it
GAP_BLOCKS_MAX: Final = 1_000_000  # declared missing in one call
LINGER_S: Final = 0.02  # a block waits so long in the client for its extent to fill, unless its writer says otherwise
LINGER_S_MAX: Final = 60.0
PATIENCE_S: Final = 1.0  # a producer with an overload policy waits so long for room, unless it says otherwise
GAP_EXTENTS_UNDER_WAY: Final = 8  # declarations of gaps that a writer has sent and not seen acknowledged
SPARE_BUFFERS_BYTES: Final = 256 * MiB  # kept for the next extents of a connection: the credit of a producer
SPARE_MEMORIES_MAX: Final = 8  # shared with the server, among them: each is a file descriptor
FEEDBACK_BYTES_MAX: Final = 64 * KiB
FEEDBACK_MESSAGES_MAX: Final = 256  # kept for a producer that does not look

# Memory of the data process
ARENA_BYTES_DEFAULT: Final = 1 * GiB  # or a quarter of the machine's memory, if that is less
ARENA_BYTES_MIN: Final = 8 * MiB
ARENA_PAGE_BYTES: Final = 64 * KiB  # the smallest region
ARENA_SLOT_BYTES: Final = 8 * MiB  # half of the arena is slots of this size, for one region each
ARENA_SLOTS_READY: Final = 2  # that a producer in this process has in hand, beside the one that it fills
RECENT_FRACTION: Final = 4  # 1/4 of the arena may hold what is durable already, for readers
UNSYNCED_BYTES_MAX: Final = 256 * MiB  # or half the arena, if that is less
CREDIT_FRACTION: Final = 4  # one producer may have 1/4 of the arena unacknowledged, which is its largest region too
STREAM_QUEUE_EXTENTS_MAX: Final = 256  # landed, waiting for the stream's kernels

# The log
SEGMENT_BYTES: Final = 512 * MiB
SEGMENT_BYTES_MIN: Final = 1 * MiB
RECORD_ALIGN_BYTES: Final = 4 * KiB
SPARE_SEGMENTS_MAX: Final = 8  # empty segments kept for reuse
SPACE_WAIT_S: Final = 30.0  # back-pressure on a full disk before SpaceExhausted
LOG_REWRITES_MAX: Final = 3  # an extent is written to this many segments more, where writing or syncing fails
SEGMENTS_OPEN_MAX: Final = 256  # file descriptors held by the log; others are opened when they are read
SCAN_BYTES: Final = 1 * MiB  # read at once where a scan looks for the next good record
FOOTER_FRACTION: Final = 16  # an index at a segment's end takes no more than 1/16 of it; else the segment has none
FOOTER_RECORDS_MIN: Final = 8  # a segment of fewer records has an index only where it leaves room for one
PREPARE_BYTES: Final = 4 * MiB  # zeros written at once to a segment that is prepared
PREPARE_FREE_SEGMENTS: Final = 4  # none is prepared where fewer would fit on the disk
COMPACTION_FRACTION: Final = 4  # a segment with less than 1/4 alive is compacted
COMPACTION_BYTES_PER_S: Final = 64 * MiB  # copied by it, unless somebody waits for space
COMPACTION_BATCH_BYTES: Final = 8 * MiB  # copied before it waits for their sync; one record may be larger
CATALOG_BATCH_MAX: Final = 64  # changes of the catalog that share one commit
DELETED_STREAMS_MAX: Final = 1_000_000  # ids of deleted streams that the catalog keeps; the oldest go first

LATE_RECORDS_KEPT: Final = 1024  # that an index remembers as late; who has not looked since looks at all

# Consumer groups
SHARE_GROUPS_MAX: Final = 64  # of one stream
SHARE_MEMBERS_MAX: Final = 256  # of one group that hold blocks
SHARE_HELD_MAX: Final = 10_000  # blocks that the members of a group hold together
SHARE_BLOCKS_MAX: Final = 1_000  # that a member takes at once
SHARE_BATCH_BYTES: Final = 64 * MiB  # that a member takes at once, or one block
SHARE_RANGES_MAX: Final = 100_000  # in which what a group has acknowledged may be
SHARE_TIMEOUT_S: Final = 30.0  # of a lease, unless its taker says otherwise
SHARE_TIMEOUT_S_MAX: Final = 7 * 86_400.0
SHARE_WAIT_S: Final = 1.0  # that the server lets a member wait for a block in one call
SHARE_WAITS_MAX: Final = 32  # members that wait so at the same time; others come again
SHARE_AGAIN_S: Final = 0.1  # after which they do
SHARE_FLUSH_S: Final = 0.25  # after which what was acknowledged is written to the catalog

AIO_THREADS: Final = 16  # of one buffer in asyncio, besides those of its writers and iterators

# Space
RESERVATIONS_MAX: Final = 1000
RESERVATION_HOURS_MAX: Final = 10_000.0
LOCATION_CHARS_MAX: Final = 4096  # where a stream is archived
ARCHIVES_MAX: Final = 16  # places that the catalog knows of one stream; the newest stay
EVICT_EVERY_S: Final = 5.0  # the retention looks at the streams so often, and where somebody waits for space
EVICT_PAUSE_S: Final = 0.1  # between two looks, whoever waits
EVICTIONS_AT_ONCE: Final = 64  # streams that one look takes at most
PRESSURE_SEGMENTS: Final = 2  # space is short where fewer whole segments are free beyond what is promised

# Events
EVENTS_PAGE: Final = 1000
EVENT_DATA_BYTES_MAX: Final = 64 * KiB
LEDGER_RANGES_MAX: Final = 100_000  # ranges listed in a stream's ledger; beyond it they are summed by reason

# Kernels
KERNEL_SOURCE_BYTES_MAX: Final = 64 * KiB
KERNEL_NESTING_MAX: Final = 64
KERNEL_NODES_MAX: Final = 2_000
KERNEL_PARAMETERS_MAX: Final = 64
KERNEL_OUTPUT_BYTES_MAX: Final = BLOCK_BYTES_MAX
KERNEL_TEMPORARY_BYTES_MAX: Final = 2 * GiB  # per block
KERNEL_OPS_PER_BYTE_MAX: Final = 20_000
KERNEL_WINDOW_MAX: Final = 63  # rows or columns of a filter's window; the sum of a window of uint16 fits 32 bits
KERNEL_MEDIAN_PIXELS_MAX: Final = (
    25  # of a median's window: its sorting network is written out, and Numba takes seconds for 49
)
KERNEL_STENCIL_PIXELS_MAX: Final = 225  # of a stencil of weights
KERNEL_GROUPS_MAX: Final = 1 << 24  # results of sums by group
KERNEL_COMPILE_S_MAX: Final = 120.0
KERNEL_BUDGET_S: Final = 30.0  # per extent, unless the binding says otherwise
KERNEL_SLICE_BYTES: Final = 2 * MiB  # an extent goes through its kernels in slices of this size, at least a block
KERNEL_TIMES_KEPT: Final = 1_024  # of the newest extents of each kernel, for its percentiles
KERNEL_FAULTS_MAX: Final = 3  # in a row, then the kernel is quarantined
COMPILER_FILES_MAX: Final = 64  # kernels that one compiling process compiles; it leaks a megabyte for each
SCAN_SNAPSHOTS_MAX: Final = 8  # kept of what a stream's scans remember; then the log is synced, and the last is enough
KERNEL_CACHE_FILES_MAX: Final = 4096  # compiled kernels kept on disk; the longest unused go first
KERNELS_LIVE_MAX: Final = 256  # compiled code kept in one process
OPENCL_TRANSFER_BYTES: Final = 32 * MiB  # on their way to or from a device with memory of its own, in one of two chunks
OPENCL_WORKERS_MAX: Final = 4_096  # work-items of one kernel on such a device
OPENCL_SCRATCH_BYTES_MAX: Final = 1 * GiB  # of the work-items of one kernel together
PIPELINE_STAGES_MAX: Final = 16
ATTACHMENTS_MAX: Final = 256  # kernels attached to one collection

# The wire
MESSAGE_BYTES_MAX: Final = BLOCK_BYTES_MAX + 1 * MiB
LONG_CALLS_MAX: Final = 64  # appends, follows, watches at once
LONG_CALLS_OF_TOKEN_MAX: Final = 24  # of them for one token that was handed out, so that it leaves some for others
CONNECTIONS_MAX: Final = 1024  # at one address; fewer where the process may open few files
CONNECTIONS_FRACTION: Final = 4  # 1/4 of the files that the process may open at most
DESCRIPTORS_WANTED: Final = 16_384  # that a server asks the system for
SHORT_CALL_THREADS: Final = 16  # left for everything else
CONNECT_S: Final = 10.0
RECONNECT_S: Final = 60.0  # a producer gives up after this long without a server
KEEPALIVE_S: Final = 20.0
ACK_LINGER_S: Final = 0.02  # an acknowledgement that gives the producer no credit waits so long for a newer one
CALL_S: Final = 60.0  # a client waits so long for the reply to a short call
SLOW_CALL_S: Final = 600.0  # and so long where the server compiles, reduces or seals
REQUEST_BODY_S: Final = 30.0  # a server waits so long for the body of a short call
HANDSHAKE_S: Final = 10.0
IDLE_CONNECTION_S: Final = 600.0  # a connection without calls is closed
CALLS_WAITING_MAX: Final = 256  # short calls that wait for a thread; more are refused
INTROSPECTION_CALLS_MAX: Final = 4  # health watches and reflections at once
REQUEST_FIELDS_MAX: Final = 65_536  # fields, repeated ones counted singly, of one request
STATUS_TEXT_BYTES_MAX: Final = 512  # of an error, for clients that do not know its details
ERROR_TEXT_BYTES_MAX: Final = 2 * KiB  # message of an error that travels, and as much again of details
TOKEN_CHARS_MAX: Final = 1024
TOKENS_MAX: Final = 10_000  # that were handed out and are good
TOKEN_HOURS_MAX: Final = 100_000.0

# Lanes and lines
LINES_MAX: Final = 256  # connections of jobs at once
LANE_TICKET_S: Final = 10.0  # a ticket that was not used by then is worth nothing
LANE_TICKETS_MAX: Final = 1024  # unused; the oldest goes when there is one more
LANE_HELLOS_MAX: Final = 64  # connections that have not shown a ticket; the oldest goes when there is one more
LANE_STALL_S: Final = 30.0  # a frame that has begun is whole by then, and what is said is taken by then
LANE_COLUMNS_BYTES_MAX: Final = 32 * KiB  # the names and types of columns, as JSON
LANE_REPLY_BYTES_MAX: Final = 4 * MiB  # what a server says in one frame
LANE_TLS_BYTES: Final = 256 * KiB  # go through OpenSSL at once; whoever goes the other way waits for so long
LANE_SOCKET_BYTES: Final = 4 * MiB  # asked for the buffers of a Unix socket; the system gives what it allows
SHARED_MEMORY_BYTES_MAX: Final = 1 * GiB  # of one producer
SHARED_SLOTS_MAX: Final = 64  # extents of one producer in shared memory; what does not fit travels by the socket
SHARED_READ_BYTES_MAX: Final = 512 * MiB  # lent to all readers at once
SHARED_READ_MEMORIES_MAX: Final = 16  # lent to one reader at once
SHARED_READ_AHEAD: Final = 2  # extents that a server is ahead of what its reader has asked for
SHARED_READ_FROM_BYTES: Final = 64 * KiB  # of an extent; smaller ones are sent
SHARED_LEASE_S: Final = 30.0  # then what is lent to a reader is given up, when the memory is needed
SHARED_READ_REQUEST_BYTES_MAX: Final = 1 * MiB
SHARED_READ_IDLE_S: Final = 10.0  # a read lane is kept so long for the next read of its stream
SHARED_READ_IDLE_BYTES: Final = 16 * MiB  # of memory that is kept with it
READ_LANES_MAX: Final = 64  # of a server, idle ones counted
READ_LANES_OF_TOKEN_MAX: Final = 24  # of them for one token that was handed out
READ_LANES_IDLE_MAX: Final = 4  # of a client
SHARED_READ_WORTH_BYTES: Final = 4 * MiB  # smaller reads take less time over gRPC than a lane takes to open
LANDING_FRACTION: Final = 2  # 1/2 of the arena may wait for bytes that are announced and have not come

# HTTP for operators
HTTP_CONNECTIONS_MAX: Final = 64
HTTP_IDLE_S: Final = 5.0  # a connection without requests is closed
HTTP_TOKENS_MAX: Final = 16  # connections to the data process, one for each token
HTTP_STREAMS_MAX: Final = 500  # on the page that lists them
HTTP_HEALTH_S: Final = 1.0  # health is looked at so often at most
HTTP_DISK_FREE_BYTES: Final = 2 * SEGMENT_BYTES  # with less the disk is not healthy
METRICS_KERNELS_MAX: Final = 100  # kernels with metrics of their own

# The rule engine
RERUN_S: Final = 570.0  # of a job that is run once more; the call that asks waits for it
FILE_PATH_PARTS_MAX: Final = 64  # of a trigger over watched files
FILE_HINTS_MAX: Final = 100_000  # of changed files that wait to be looked at; beyond, all are scanned
FILE_SETTLE_S: Final = 2.0  # a file that is the same for so long is settled, where nobody tells of its close
FILE_SCAN_S: Final = 2.0  # between scans of directories in network file systems
FILE_RESCAN_S: Final = 300.0  # between scans of directories of which the kernel tells
STREAM_WATCHES_MAX: Final = 100_000  # wishes of patterns for events of open streams
SWEEP_POINTS_MAX: Final = 10_000
VARIABLES_BYTES_MAX: Final = 256 * KiB
RECIPE_BYTES_MAX: Final = 16 * MiB
RECIPE_PACKAGES_MAX: Final = 64
JOB_CORES_MAX: Final = 1024
JOB_MEMORY_BYTES: Final = 4 * GiB  # of all processes of an attempt, unless its recipe says otherwise
JOB_MEMORY_BYTES_MIN: Final = 64 * MiB
SPARE_JOBS_MAX: Final = 4  # processes that are started ahead of their jobs
MEMORY_LEFT_FRACTION: Final = 4  # 1/4 of the machine's memory is not for jobs
JOB_OVERTAKEN_S: Final = 30.0  # so long may jobs that need less go before one for which there is no room
JOB_WORK_BYTES_MAX: Final = 64 * GiB  # in an attempt's working directory
JOB_WORK_FILES_MAX: Final = 100_000
JOB_FILES_MAX: Final = 1_000  # left in the working directory, to come back as streams
JOB_PROCESSES_MAX: Final = 512  # of one attempt, at once
JOB_PRINTED_BYTES_MAX: Final = 4 * GiB  # an attempt that prints more is ended
JOB_OUTPUT_BYTES_MAX: Final = 256 * KiB  # kept of a job's printed output
JOB_TIMEOUT_S: Final = 3600.0
JOB_TIMEOUT_MAX_S: Final = 7 * 86400.0  # of a recipe or pattern; a job's token ends a day after
JOB_RETRIES: Final = 2
JOBS_AT_ONCE: Final = 2
JOB_INTERRUPTIONS_MAX: Final = 5  # attempts that ended with the rule engine's death, beside the retries; then it failed
CHAIN_JOBS_MAX: Final = 10_000  # jobs that led to one another, where the pattern sets no bound of its own
TIMER_EVERY_S_MIN: Final = 1.0
TIMER_EVERY_S_MAX: Final = 366 * 86_400.0
TIMER_CATCH_UP_MAX: Final = 1_000  # missed times of one timer that are made up for, the newest ones
LOOP_SEARCH_JOBS_MAX: Final = 64  # causes looked at, back from a job, for one of the same pattern
JOB_RETRY_FIRST_S: Final = 1.0  # before the first retry; twice as long before each one after it
JOB_RETRY_MOST_S: Final = 300.0
JOB_KILL_S: Final = 5.0  # for a job's supervisor to end its processes before the engine does it itself
JOB_ERROR_CHARS_MAX: Final = 2_000
JOB_ROWS_MAX: Final = 10_000  # after so many job rows a transaction of the rule engine takes no further event
JOBS_LISTED_MAX: Final = 10_000
STORE_RETRY_FIRST_S: Final = 0.1  # the rule engine's pause after a call that found no buffer; then twice as long
STORE_RETRY_MOST_S: Final = 5.0
PROVENANCE_NODES_MAX: Final = 5_000

# Views of stored streams: files, arrays, datasets
VIEW_CONNECTIONS_MAX: Final = 64  # that one process keeps for them; the oldest is forgotten
VIEW_PIECE_BYTES: Final = 4 * MiB  # read and kept at once; a larger block is a piece of its own
VIEW_CACHE_BYTES: Final = 256 * MiB  # of pieces, in the memory of one process; the newest stays, whatever its size
VIEW_DISK_CACHE_BYTES: Final = 10 * GiB  # of pieces, in the directory that a user names, unless he says otherwise
VIEW_READS_AT_ONCE: Final = 4  # pieces of one range, and ranges of one call
VIEW_CHUNK_BYTES: Final = 32 * MiB  # of dask's arrays; a larger block is a chunk of its own
VIEW_SPAN_MAX: Final = 1 << 28  # indices from a stream's first to its last for which a mask is made

# The way out
DRAIN_THREADS_MAX: Final = 16  # that compress for one drain
LIVE_SEGMENT_BYTES: Final = 1 * GiB  # of blocks in one segment of a live drain, and one extent more
LIVE_SEGMENT_S: Final = 30.0  # the longest that a new block waits for its segment
LIVE_SINGLY_MAPPED_MAX: Final = 4096  # frames that a master maps one by one; of more, runs of them
LIVE_LOOK_S: Final = 1.0  # between two looks at the streams
DRAIN_WINDOW_BYTES: Final = 64 * MiB  # of chunks that wait to be compressed or written
DRAIN_URL_CHARS_MAX: Final = 2048  # of a policy's target, before its fields are filled in
DRAIN_TARGETS_MAX: Final = 8  # of one policy
DRAIN_PRIORITY_MAX: Final = 1000
DRAINS_LISTED_MAX: Final = 10_000  # entries of the queue in one answer, those that go first
DRAIN_REASON_CHARS_MAX: Final = 1_000  # kept of why a drain failed
DRAIN_LOOK_S: Final = 1.0  # the drain process looks for work so often
DRAIN_RETRY_FIRST_S: Final = 1.0  # before a failed drain is tried again; then twice as long
DRAIN_RETRY_MOST_S: Final = 600.0
DRAIN_BURST_S: Final = 0.25  # of a drain's bandwidth may be taken at once
S3_PART_BYTES: Final = 16 * MiB  # of a multipart upload; larger where more than `S3_PARTS_MAX` would be needed
S3_PARTS_MAX: Final = 9_000  # the protocol allows 10,000
S3_PARTS_AT_ONCE: Final = 4
S3_RETRIES_MAX: Final = 5  # of one request
S3_RETRY_S: Final = 180.0  # all tries of one request together
S3_CALL_S: Final = 120.0  # for one request and its answer
ARCHIVE_READERS_MAX: Final = 4  # processes that read archives at once
ARCHIVE_READ_S: Final = 60.0  # an archive that does not answer for so long is unreachable, and its reader is ended
ARCHIVE_WAITING_MAX: Final = 28  # reads that wait for one of them; more are refused, so that producers find a thread
ARCHIVE_SILENT_S: Final = 30.0  # an archive that did not answer is not asked again for so long
ARCHIVE_REPLY_BYTES_MAX: Final = 4 * GiB  # of one of them at once: a block, or one vector of a table
ARCHIVE_IDLE_S: Final = 600.0  # a reader that nobody asks for so long ends
ARCHIVES_OPEN_MAX: Final = 16  # streams that one reader keeps open
ARCHIVE_CACHE_BYTES: Final = 128 * MiB  # of blocks that were read from archives, kept by the data process
ARCHIVE_TABLES_BYTES: Final = 64 * MiB  # of what stands beside them; the newest stays, whatever its size
DAMAGE_RANGES_MAX: Final = 1_000  # of damaged blocks named for each stream; a verification then goes on to the next

assert DRAIN_TARGETS_MAX < ARCHIVES_MAX, "the places of all targets are remembered"
assert DRAIN_URL_CHARS_MAX + PATH_CHARS_MAX < LOCATION_CHARS_MAX
# The way in from files and controls
INTAKE_RUN_BYTES: Final = 32 * MiB  # read of a file at once; one block may be larger
INTAKE_PACKET_BYTES: Final = 256 * KiB  # of an event file's chunks that make one block; one chunk may be larger
INTAKE_FILES_MAX: Final = 1_000_000  # of one series
INTAKE_ATTRS_BYTES_MAX: Final = 64 * KiB  # of a stream's attributes that come from its file
INTAKE_ATTR_VALUES_MAX: Final = 32  # values of one of them
INTAKE_TEXT_CHARS_MAX: Final = 4 * KiB  # of a text among them
WATCH_BLOCK_BYTES: Final = 8 * MiB  # of a watched file that is sent as bytes
WATCH_BATCH_FILES_MAX: Final = 100_000  # whose frames are one stream
BRIDGE_QUEUE_IMAGES: Final = 64  # of a pvAccess channel that wait to be stored, unless the bridge says otherwise
BRIDGE_QUEUE_IMAGES_MAX: Final = 10_000
WATCH_ASKED_MAX: Final = 100  # streams that one look asks for, whether they are archived
WATCH_LOOK_S: Final = 1.0  # between two looks where nothing says that there is something to see

assert EXTENT_BYTES_TARGET <= BLOCK_BYTES_MAX <= ARENA_BYTES_DEFAULT // CREDIT_FRACTION
assert 2 * VIEW_READS_AT_ONCE * VIEW_READS_AT_ONCE <= LONG_CALLS_MAX, "one reader of files leaves calls for others"
assert MESSAGE_BYTES_MAX > BLOCK_BYTES_MAX
assert 2 * LONG_CALLS_OF_TOKEN_MAX < LONG_CALLS_MAX, "one or two tokens leave room for others"
assert 2 * READ_LANES_OF_TOKEN_MAX < READ_LANES_MAX
assert EXTENT_BYTES_TARGET <= ARCHIVE_CACHE_BYTES
assert ARCHIVE_READERS_MAX + ARCHIVE_WAITING_MAX <= LONG_CALLS_MAX // 2, "archives that hang leave calls to producers"
assert BLOCK_BYTES_MAX <= ARCHIVE_REPLY_BYTES_MAX
assert LANE_REPLY_BYTES_MAX > 16 * LEDGER_RANGES_MAX, "where a stream stands, gaps and all, fits into one frame"
assert FEEDBACK_BYTES_MAX + KiB < LANE_REPLY_BYTES_MAX
assert SHARED_MEMORY_BYTES_MAX >= 2 * BLOCK_BYTES_MAX, "one is filled while the other is on its way"
assert LANDING_FRACTION <= CREDIT_FRACTION, "the extent of one producer at least lands in place"
assert BLOCK_BYTES_MAX + MiB <= SEGMENT_BYTES, "a block and its header fit into one segment"
assert ARENA_BYTES_MIN % ARENA_PAGE_BYTES == 0
assert EXTENT_BYTES_TARGET <= ARENA_SLOT_BYTES
assert RECORD_ALIGN_BYTES <= ARENA_PAGE_BYTES
assert SEGMENT_BYTES_MIN % RECORD_ALIGN_BYTES == 0

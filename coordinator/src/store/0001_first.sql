-- Times are milliseconds since the Unix epoch; ids are UUIDs as hyphenated text; names are as users know them.

-- What users submitted, and how it ended. A row is inserted together with its first tasks and its first event.
CREATE TABLE livepatches (
    -- Order of submission: pages of a list are cut by it.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    -- klp_livepatch::spec::Spec as JSON.
    spec TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'partial', 'failed')),
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    verdict TEXT NOT NULL DEFAULT '',
    -- The number of its newest event: makes event numbers gapless.
    last_event INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'running') = (ended_ms IS NULL))
) STRICT;

CREATE INDEX livepatches_open ON livepatches (seq) WHERE state = 'running';

-- The units of work. The identity key makes planning idempotent: what is planned twice is created once.
CREATE TABLE tasks (
    -- Order of creation: tasks of a livepatch are served by it.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    livepatch TEXT NOT NULL REFERENCES livepatches (id),
    kind TEXT NOT NULL,
    codestream TEXT NOT NULL,
    arch TEXT NOT NULL,
    round INTEGER NOT NULL CHECK (round >= 1),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'succeeded', 'failed')),
    -- The newest attempt's number; 0 before the first. It fences: no other attempt may change the task.
    attempt INTEGER NOT NULL DEFAULT 0,
    -- Attempts that failed by the farm's fault.
    faults INTEGER NOT NULL DEFAULT 0,
    -- A waiting task is not leased before.
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    -- Why it failed, or why it waits again.
    failure_cause TEXT,
    failure_message TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    UNIQUE (livepatch, kind, codestream, arch, round)
) STRICT;

CREATE INDEX tasks_open ON tasks (livepatch) WHERE state IN ('waiting', 'leased');

-- The executions of tasks, each under one lease to one incarnation of one worker. At most one of a task is 'leased'.
CREATE TABLE attempts (
    task TEXT NOT NULL REFERENCES tasks (id),
    number INTEGER NOT NULL CHECK (number >= 1),
    worker TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('leased', 'succeeded', 'failed', 'handed-back', 'lost')),
    -- As granted; renewals are not stored, a restarted coordinator renews every lease once.
    lease_expires_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    failure_cause TEXT,
    failure_message TEXT,
    -- klp_livepatch::report::Report as JSON.
    report TEXT,
    PRIMARY KEY (task, number)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX attempts_one_lease ON attempts (task) WHERE state = 'leased';

-- The files that an attempt's outcome names. Their bytes are in the blob folder, and were before the row was.
CREATE TABLE artifacts (
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, name),
    FOREIGN KEY (task, attempt) REFERENCES attempts (task, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX artifacts_digest ON artifacts (digest);

-- What happened to a livepatch, numbered from 1 without gaps, written in the transaction that made it happen. Of the
-- task it is about, an event holds what can change later; the rest is read from tasks and attempts.
CREATE TABLE events (
    livepatch TEXT NOT NULL REFERENCES livepatches (id),
    number INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    message TEXT NOT NULL,
    -- The livepatch ended with this event.
    ended INTEGER NOT NULL DEFAULT 0,
    task TEXT REFERENCES tasks (id),
    task_state TEXT,
    attempt INTEGER,
    failure_cause TEXT,
    failure_message TEXT,
    PRIMARY KEY (livepatch, number)
) STRICT, WITHOUT ROWID;

-- Workers that ever registered, so that a submission after a restart knows the fleet before it is back.
CREATE TABLE workers (
    name TEXT NOT NULL PRIMARY KEY,
    incarnation TEXT NOT NULL,
    version TEXT NOT NULL,
    slots INTEGER NOT NULL,
    -- Tools as a JSON list of [backend, version].
    tools TEXT NOT NULL,
    registered_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The trees each worker held when it last said so: what submissions are resolved against.
CREATE TABLE trees (
    worker TEXT NOT NULL REFERENCES workers (name),
    codestream TEXT NOT NULL,
    arch TEXT NOT NULL,
    PRIMARY KEY (worker, codestream, arch)
) STRICT, WITHOUT ROWID;

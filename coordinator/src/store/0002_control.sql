-- Cancelling, pausing and sharing; what the farm thinks of its workers. Three tables are made anew because their CHECK
-- on states grows; foreign keys are off while this runs and are checked after it.

-- Livepatches: a state, how they compete, and whether they are paused.
CREATE TABLE livepatches_new (
    -- Order of submission: pages of a list are cut by it.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    -- klp_livepatch::spec::Spec as JSON.
    spec TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'partial', 'failed', 'cancelled')),
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    verdict TEXT NOT NULL DEFAULT '',
    -- The number of its newest event: makes event numbers gapless.
    last_event INTEGER NOT NULL DEFAULT 0,
    -- klp_livepatch::Share.
    priority INTEGER NOT NULL DEFAULT 0,
    weight INTEGER NOT NULL DEFAULT 100,
    -- While it is set, no further task is started.
    paused_ms INTEGER,
    pause_reason TEXT NOT NULL DEFAULT '',
    CHECK ((state = 'running') = (ended_ms IS NULL))
) STRICT;

INSERT INTO livepatches_new (seq, id, name, spec, state, created_ms, ended_ms, verdict, last_event)
SELECT seq, id, name, spec, state, created_ms, ended_ms, verdict, last_event FROM livepatches;
DROP TABLE livepatches;
ALTER TABLE livepatches_new RENAME TO livepatches;
CREATE INDEX livepatches_open ON livepatches (seq) WHERE state = 'running';

-- Tasks: a state, and how many attempts ended with their worker.
CREATE TABLE tasks_new (
    -- Order of creation: tasks of a livepatch are served by it.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    livepatch TEXT NOT NULL REFERENCES livepatches (id),
    kind TEXT NOT NULL,
    codestream TEXT NOT NULL,
    arch TEXT NOT NULL,
    round INTEGER NOT NULL CHECK (round >= 1),
    state TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'succeeded', 'failed', 'cancelled')),
    -- The newest attempt's number; 0 before the first. It fences: no other attempt may change the task.
    attempt INTEGER NOT NULL DEFAULT 0,
    -- Attempts that failed by the farm's fault, since the task was new or given a new chance.
    faults INTEGER NOT NULL DEFAULT 0,
    -- Those of them whose worker died.
    deaths INTEGER NOT NULL DEFAULT 0,
    -- A waiting task is not leased before.
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    -- Why it failed, or why it waits again.
    failure_cause TEXT,
    failure_message TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    UNIQUE (livepatch, kind, codestream, arch, round)
) STRICT;

INSERT INTO tasks_new (seq, id, livepatch, kind, codestream, arch, round, state, attempt, faults, not_before_ms,
                       failure_cause, failure_message, created_ms, ended_ms)
SELECT seq, id, livepatch, kind, codestream, arch, round, state, attempt, faults, not_before_ms, failure_cause,
       failure_message, created_ms, ended_ms FROM tasks;
DROP TABLE tasks;
ALTER TABLE tasks_new RENAME TO tasks;
CREATE INDEX tasks_open ON tasks (livepatch) WHERE state IN ('waiting', 'leased');

-- Attempts: how they ended.
CREATE TABLE attempts_new (
    task TEXT NOT NULL REFERENCES tasks (id),
    number INTEGER NOT NULL CHECK (number >= 1),
    worker TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('leased', 'succeeded', 'failed', 'handed-back', 'taken-back', 'lost', 'died', 'cancelled')),
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

INSERT INTO attempts_new SELECT task, number, worker, incarnation, state, lease_expires_ms, started_ms, ended_ms,
                                failure_cause, failure_message, report FROM attempts;
DROP TABLE attempts;
ALTER TABLE attempts_new RENAME TO attempts;
CREATE UNIQUE INDEX attempts_one_lease ON attempts (task) WHERE state = 'leased';
-- What a worker lost while nobody knew yet that it had died.
CREATE INDEX attempts_lost ON attempts (worker, incarnation) WHERE state = 'lost';

-- Bytes that it lends to attempts; 0: it did not say.
ALTER TABLE workers ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
-- Backends that it has and that fail its readiness check, as a JSON map to the reason.
ALTER TABLE workers ADD COLUMN broken_tools TEXT NOT NULL DEFAULT '{}';
-- What the farm thinks of it, as JSON (the coordinator's standing::Standing).
ALTER TABLE workers ADD COLUMN standing TEXT NOT NULL DEFAULT '{}';
-- Why the tree can't be used; empty if it can.
ALTER TABLE trees ADD COLUMN problem TEXT NOT NULL DEFAULT '';

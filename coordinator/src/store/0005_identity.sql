-- Who may do what, and who did.

-- Tokens of people and scripts. Of a secret only its SHA-256 is kept.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Tokens that let one worker in, once. One that was used or revoked has a time of its end.
CREATE TABLE enrollments (
    id TEXT NOT NULL PRIMARY KEY,
    worker TEXT NOT NULL,
    hash BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Certificates that workers were given. One that is not here is refused, whoever signed it.
CREATE TABLE certificates (
    serial TEXT NOT NULL PRIMARY KEY,
    worker TEXT NOT NULL,
    issued_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX certificates_worker ON certificates (worker);

-- Who did what: written in the transaction that did it, where there is one.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    caller TEXT NOT NULL,
    role TEXT NOT NULL,
    address TEXT NOT NULL,
    method TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;

CREATE INDEX audit_time ON audit (time_ms);

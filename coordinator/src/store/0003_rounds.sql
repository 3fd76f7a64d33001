-- Livepatches that are only checked, platforms that need none, further rounds, and fixes.

-- What planning asks of the spec, as JSON (the coordinator's plan::Aim): read at each task's end, where the whole spec
-- would cost too much.
ALTER TABLE livepatches ADD COLUMN aim TEXT NOT NULL DEFAULT '';
UPDATE livepatches
SET aim = json_object('goal', 'sources', 'backend', json_extract(spec, '$.backend'), 'codestreams', '');

-- What a task is told beyond the spec, as JSON (klp_livepatch::round::Input).
ALTER TABLE tasks ADD COLUMN input TEXT;
-- A check that succeeded and found nothing to patch.
ALTER TABLE tasks ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;

-- The fix patches that a livepatch's spec names. Their bytes are in the blob folder, and were before the row was.
CREATE TABLE fixes (
    livepatch TEXT NOT NULL REFERENCES livepatches (id),
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (livepatch, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX fixes_digest ON fixes (digest);

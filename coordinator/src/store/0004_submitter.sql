-- Who submitted a livepatch, as they said; empty: they did not.
ALTER TABLE livepatches ADD COLUMN submitted_by TEXT NOT NULL DEFAULT '';

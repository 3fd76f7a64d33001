-- Which CAs a worker was told to trust with its certificate, by their fingerprints: a list, the one that made the certificate
-- first. Empty: the farm's first CA, since no other was there before this was recorded.
ALTER TABLE certificates ADD COLUMN trusts TEXT NOT NULL DEFAULT '[]';

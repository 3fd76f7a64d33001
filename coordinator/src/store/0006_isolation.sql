-- What a worker's tools are kept from, as it said: a list of fences, each with the reason why it is not there, or null.
ALTER TABLE workers ADD COLUMN isolation TEXT NOT NULL DEFAULT '[]';

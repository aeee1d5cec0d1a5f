"""How the journal's file is laid out, from its first version on."""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE event (
        sequence INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        type TEXT NOT NULL,
        subject TEXT NOT NULL,
        source TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        stored_ns INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        envelope BLOB NOT NULL
    );
    CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, stored_ns INTEGER NOT NULL);
    INSERT INTO head VALUES (1, 0, 0);
    CREATE TABLE type_count (type TEXT PRIMARY KEY, published INTEGER NOT NULL, newest_ns INTEGER NOT NULL);
    CREATE TABLE consumer (name TEXT PRIMARY KEY, state TEXT NOT NULL);
    CREATE TABLE dead_letter (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        consumer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        type TEXT NOT NULL,
        subject TEXT NOT NULL,
        stored_ns INTEGER NOT NULL,
        dead_ns INTEGER NOT NULL,
        failures TEXT NOT NULL,
        envelope BLOB NOT NULL,
        UNIQUE (consumer, sequence)
    );
    """,
    """
    ALTER TABLE type_count ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE type_count ADD COLUMN held_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE type_count ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0;
    UPDATE type_count SET
        held = (SELECT count(*) FROM event WHERE event.type = type_count.type),
        held_bytes = (SELECT coalesce(sum(length(envelope)), 0) FROM event WHERE event.type = type_count.type);
    CREATE TABLE latest (
        subject TEXT NOT NULL,
        type TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (subject, type)
    ) WITHOUT ROWID;
    INSERT INTO latest SELECT subject, type, max(sequence) FROM event GROUP BY subject, type;
    ALTER TABLE dead_letter ADD COLUMN requeued INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE dead_letter ADD COLUMN edited INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE answer (
        request_id TEXT PRIMARY KEY,
        mark TEXT NOT NULL,
        response BLOB NOT NULL,
        answered_ns INTEGER NOT NULL
    );
    """,
    """
    CREATE TABLE type_files (digest TEXT PRIMARY KEY, packed BLOB NOT NULL);
    CREATE TABLE type_definition (
        type TEXT NOT NULL,
        version INTEGER NOT NULL,
        digest TEXT NOT NULL,
        told TEXT NOT NULL,
        PRIMARY KEY (type, version)
    ) WITHOUT ROWID;
    """,
)

//! An atomic write to the state database.

use ::rocksdb::WriteBatch;

use super::database::Database;
use super::keys::{Generation, Meta, column};

/// What is written at once: records of one generation, and what says which state that is.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    generation: Generation,
    batch: WriteBatch,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(database: &'a Database, generation: Generation) -> Self {
        Self { database, generation, batch: WriteBatch::default() }
    }

    pub(crate) fn put(&mut self, column: &str, key: &[u8], record: Vec<u8>) {
        self.batch.put_cf(self.database.column(column), self.generation.key(key), record);
    }

    pub(crate) fn delete(&mut self, column: &str, key: &[u8]) {
        self.batch.delete_cf(self.database.column(column), self.generation.key(key));
    }

    /// Deletes the keys from `first` to before `end`.
    pub(crate) fn delete_range(&mut self, column: &str, first: &[u8], end: &[u8]) {
        let (first, end) = (self.generation.key(first), self.generation.key(end));
        self.batch.delete_range_cf(self.database.column(column), first, end);
    }

    /// Deletes all of the generation.
    pub(crate) fn clear(&mut self) {
        for name in column::OF_A_GENERATION {
            let (first, end) = (self.generation.key(b""), self.generation.end());
            self.batch.delete_range_cf(self.database.column(name), first, end);
        }
    }

    pub(crate) fn put_meta(&mut self, key: Meta, record: Vec<u8>) {
        self.batch.put_cf(self.database.column(column::META), key.to_bytes(), record);
    }

    pub(crate) fn delete_meta(&mut self, key: Meta) {
        self.batch.delete_cf(self.database.column(column::META), key.to_bytes());
    }

    pub(crate) fn finish(self) -> WriteBatch {
        self.batch
    }
}

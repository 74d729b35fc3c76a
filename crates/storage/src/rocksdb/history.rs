//! The list of issued commands: kept for whoever lacks them, until they are too many, too heavy or
//! too old.
//!
//! Each record knows what all commands before it weigh, and its time, so that the lowest number to
//! keep is found without reading what lies between.

use protocol::{Command, CommandBody, CommandNumber};

use super::batch::Batch;
use super::database::Database;
use super::keys::{self, column};
use super::reader::Reader;
use super::record::{self, Head, Place};
use super::state::{RocksState, lock};
use crate::{Retention, StateStore as _, StorageError, weight};

/// Adds commands to a batch, where those before weigh so much; returns what all weigh then.
pub(super) fn put(batch: &mut Batch<'_>, mut before: u64, commands: &[(&Command, &CommandBody)]) -> u64 {
    for (command, body) in commands {
        let place = Place { before, time: body.time };
        batch.put(column::COMMANDS, &keys::of_number(command.number()), record::command(place, command));
        before += weight(command) as u64;
    }
    before
}

/// What all commands weigh. When none is kept, counting begins anew.
pub(super) fn weight_of_all(database: &Database, reader: &Reader<'_>, head: &Head) -> Result<u64, StorageError> {
    let last = head.applied.number;
    if head.dropped >= last {
        return Ok(0);
    }
    let found = reader.pinned(column::COMMANDS, &keys::of_number(last))?;
    let read = found.ok_or_else(missing).and_then(|bytes| record::read_command(&bytes));
    let (place, command) = database.readable(&format!("command {last}"), read)?;
    Ok(place.before + weight(&command) as u64)
}

fn missing() -> String {
    "it is missing".to_owned()
}

/// See [`crate::StateStore::commands`].
pub(super) fn list(
    state: &RocksState,
    first: CommandNumber,
    limit: usize,
    bytes: usize,
) -> Result<Option<Vec<Command>>, StorageError> {
    let mut wanted = first.max(CommandNumber::NULL.next());
    let reader = state.reader();
    // In this order: what is applied now is in what is read next, and what was dropped before that
    // is known to be dropped.
    let last = state.applied().number;
    let mut items = reader.iterate(column::COMMANDS, &keys::of_number(wanted), None);
    if wanted < state.kept_from() {
        return Ok(None);
    }
    let mut found: Vec<Command> = Vec::new();
    let mut weight = 0;
    while found.len() < limit && wanted <= last {
        let item = items.take(|key, value| Ok((keys::number(key), record::read_command(value)?.1)))?;
        let command = item.filter(|(number, _)| *number == Some(wanted)).map(|(_, command)| command);
        let command = state.database.readable(&format!("command {wanted}"), command.ok_or_else(missing))?;
        weight += command.body.len();
        if !found.is_empty() && weight > bytes {
            break;
        }
        found.push(command);
        wanted = wanted.next();
    }
    Ok(Some(found))
}

/// See [`crate::StateStore::forget_commands`].
pub(super) fn forget(
    state: &RocksState,
    retention: &Retention,
    at_most: CommandNumber,
) -> Result<CommandNumber, StorageError> {
    let writer = lock(&state.writer);
    let reader = state.reader();
    let mut head = state.known().head.clone();
    let last = head.applied.number;
    let is_kept = |number: CommandNumber| -> Result<bool, StorageError> {
        let found = reader.pinned(column::COMMANDS, &keys::of_number(number))?;
        let read = found.ok_or_else(missing).and_then(|bytes| record::read_place(&bytes));
        let place = state.database.readable(&format!("command {number}"), read)?;
        Ok(place.time >= retention.since
            && writer.weight - place.before <= retention.bytes
            && last.0 - number.0 < retention.commands)
    };
    let first = head.dropped.next();
    let low = lowest(first, last.min(at_most).next(), is_kept)?;
    let Some(dropped) = low.previous().filter(|_| low > first) else { return Ok(first) };
    // Known before it is written, see `list`.
    head.dropped = dropped;
    state.known().head.dropped = dropped;
    let mut batch = Batch::new(&state.database, head.generation);
    batch.delete_range(column::COMMANDS, &keys::of_number(first), &keys::of_number(low));
    state.put_head(&mut batch, &head);
    state.database.write_buffered(batch.finish())?;
    Ok(low)
}

/// The lowest number from `first` on that is kept, as all above it are; `end` if none below that is.
///
/// It goes up in steps that double: since the last time little has become too much, and mostly nothing has. A bisection of
/// all that is kept would read blocks all over the files, every second, and fill the cache with them.
fn lowest(
    first: CommandNumber,
    end: CommandNumber,
    is_kept: impl Fn(CommandNumber) -> Result<bool, StorageError>,
) -> Result<CommandNumber, StorageError> {
    let (mut low, mut end, mut step) = (first, end, 1);
    while low < end {
        let probe = CommandNumber((low.0 + step - 1).min(end.0 - 1));
        if is_kept(probe)? {
            end = probe;
            break;
        }
        low = probe.next();
        step *= 2;
    }
    while low < end {
        let middle = CommandNumber(low.0 + (end.0 - low.0) / 2);
        if is_kept(middle)? {
            end = middle;
        } else {
            low = middle.next();
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Catches a command that is forgotten too early or kept too long, and a look at commands far from those that go:
    /// each is a block that is read, every second, and takes the place of one that is needed.
    #[test]
    fn what_is_kept_is_found_near_what_goes() {
        for (first, end) in [(1, 1), (1, 2), (1, 200), (77, 200), (1, 1_000_000)] {
            for boundary in (first..end.min(first + 130)).chain([end]) {
                let looked_at = RefCell::new(Vec::new());
                let found = lowest(CommandNumber(first), CommandNumber(end), |number| {
                    looked_at.borrow_mut().push(number.0);
                    Ok(number.0 >= boundary)
                });
                assert_eq!(found, Ok(CommandNumber(boundary)), "from {first} to {end}");
                let looked_at = looked_at.into_inner();
                let go = boundary - first;
                assert!(looked_at.iter().all(|number| number - first <= 2 * go), "{go} go: {looked_at:?}");
                assert!(go > 0 || looked_at.len() <= 1, "{looked_at:?}");
            }
        }
    }
}

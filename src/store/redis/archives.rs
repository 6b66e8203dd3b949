//! Where archives are with the hosts of a shared store: a field of each host, which the script that records a sample changes
//! where the sample is late.

use ::redis::{Value, cmd};
use smol_str::SmolStr;

use super::super::{ARCHIVES_MAX, ArchiveCursor, ArchiveDone, ArchiveDue, StoreError};
use super::layout::HostKeys;
use super::nodes::Command;
use super::{Redis, not_understood};

/// Hosts that are asked for in one batch.
const HOSTS_PER_BATCH: usize = 500;

impl Redis {
    /// Where an archive is with each of some hosts.
    pub(in super::super) fn archive_cursors(
        &self,
        id: u64,
        hosts: &[SmolStr],
    ) -> Result<Vec<ArchiveCursor>, StoreError> {
        let mut cursors = Vec::with_capacity(hosts.len());
        for hosts in hosts.chunks(HOSTS_PER_BATCH) {
            let commands: Vec<Command> = hosts.iter().map(|host| HostKeys::of(host).archives()).collect();
            for reply in self.ask(&commands) {
                cursors.push(read_cursor(&reply?, id));
            }
        }
        Ok(cursors)
    }

    /// Begins to read for an archive what is late of a host, and what is before the minute `end`.
    pub(in super::super) fn begin_archiving(
        &self,
        id: u64,
        host: &str,
        limit: u64,
        end: u64,
    ) -> Result<Option<ArchiveDue>, StoreError> {
        let reply = self.ask(&[self.archives_step(host, "begin", id, [limit, end])]).pop().unwrap_or(Ok(Value::Nil))?;
        match &reply {
            Value::Nil => Ok(None),
            Value::Array(numbers) => match numbers.as_slice() {
                [Value::Int(next), Value::Int(late)] => {
                    let next = u64::try_from(*next).unwrap_or(0);
                    let late = u64::try_from(*late).ok().filter(|late| *late < next);
                    Ok(Some(ArchiveDue { next, late: late.into_iter().map(|late| (late, next - 1)).collect() }))
                }
                _ => Err(not_understood(&reply)),
            },
            other => Err(not_understood(other)),
        }
    }

    /// Notes what an archive has got of hosts.
    pub(in super::super) fn note_archived(&self, id: u64, done: &[ArchiveDone]) -> Result<(), StoreError> {
        for done in done.chunks(HOSTS_PER_BATCH) {
            let step =
                |done: &ArchiveDone| self.archives_step(&done.host, "done", id, [done.next, done.has_late.into()]);
            let commands: Vec<Command> = done.iter().map(step).collect();
            self.ask(&commands).into_iter().try_for_each(|reply| reply.map(drop))?;
        }
        Ok(())
    }

    fn archives_step(&self, host: &str, step: &str, id: u64, numbers: [u64; 2]) -> Command {
        let keys = HostKeys::of(host);
        let mut script = cmd("EVALSHA");
        script.arg(&self.scripts.archives).arg(1).arg(keys.host());
        script.arg(step).arg(format!("{id:x}")).arg(&numbers).arg(ARCHIVES_MAX).arg(format!("{:x}", self.reader));
        keys.command(&script, true)
    }
}

/// Reads the field that `archives.lua` describes.
fn read_cursor(reply: &Value, id: u64) -> ArchiveCursor {
    let Value::BulkString(bytes) = reply else { return ArchiveCursor::default() };
    let text = String::from_utf8_lossy(bytes);
    let of_archive = |archive: &str| {
        let mut fields = archive.split(' ');
        let known = u64::from_str_radix(fields.next()?, 16).ok()?;
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (next, changed, late) = (number()?, number()?, number()?);
        (known == id).then_some(ArchiveCursor { next, has_late: changed.min(late) < next })
    };
    text.split(';').find_map(of_archive).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_of_a_host_says_where_each_archive_is() {
        let field = Value::BulkString(b"a 7 9 999999999999 5e;fe 20 12 999999999999 5e;b 9 9 3 5e;junk;".to_vec());
        let cursor = |id| read_cursor(&field, id);
        assert_eq!(cursor(0xa), ArchiveCursor { next: 7, has_late: false });
        assert_eq!(cursor(0xfe), ArchiveCursor { next: 20, has_late: true });
        assert_eq!(cursor(0xb), ArchiveCursor { next: 9, has_late: true });
        assert_eq!((cursor(1), read_cursor(&Value::Nil, 1)), (ArchiveCursor::default(), ArchiveCursor::default()));
    }
}

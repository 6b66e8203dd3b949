//! What a receiver tells glibc's allocator, so that its memory follows what it holds and not the crowds it has seen.
//!
//! A connection is a thread. glibc gives threads arenas of their own, up to eight a processor, of which each keeps the
//! most that it has ever held, so that each new crowd finds one that has not held a crowd yet; and it keeps up to 20 KB
//! of what a thread has freed for that thread alone, half of all that a connection takes. And once a long answer is
//! freed, it has answers of that length from the heap, among which small things lie that keep it from shrinking. Without
//! unsafe code, all of this can be told otherwise in the environment alone, which is read before this program runs.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// What glibc reads. Who has set one of them has decided.
const TUNABLES: &str = "GLIBC_TUNABLES";
const ARENA_MAX: &str = "MALLOC_ARENA_MAX";
/// Says to a program that it was started anew: a glibc that does not trust whoever starts it hides what it has read.
const STARTED_ANEW: &str = "LIZM_STARTED_ANEW";

/// Fewest arenas: with one, threads would wait for each other's allocations.
const ARENAS_MIN: usize = 2;
/// Bytes from which memory is the kernel's to give and to take back, and that stay free at the top of a heap: glibc's
/// own, which it raises as it goes unless it is told.
const LONG_BYTES: usize = 128 << 10;

/// Starts this program anew in the same process, once: with an arena for each processor, nothing kept back for a thread,
/// and what is long given back at once. Where it cannot be started anew it goes on as it is, and needs more memory.
pub(crate) fn reexec_with_malloc_tunables() {
    let is_decided = [TUNABLES, ARENA_MAX, STARTED_ANEW].into_iter().any(|name| env::var_os(name).is_some());
    let mut arguments = env::args_os();
    if !is_decided && let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) {
        let arenas = thread::available_parallelism().map_or(ARENAS_MIN, |processors| processors.get().max(ARENAS_MIN));
        let tunables = format!(
            "glibc.malloc.arena_max={arenas}:glibc.malloc.tcache_count=0:\
             glibc.malloc.mmap_threshold={LONG_BYTES}:glibc.malloc.trim_threshold={LONG_BYTES}"
        );
        let mut anew = Command::new(program);
        let error = anew.arg0(name).args(arguments).env(TUNABLES, tunables).env(STARTED_ANEW, "1").exec();
        eprintln!("lizm: cannot be started anew with an allocator that keeps less: {error}");
    }
}

//! Settings of glibc's allocator that keep a receiver's memory close to what it holds.
//!
//! By default glibc gives threads up to eight arenas a processor. Each arena keeps the most that it has ever held, so
//! that memory grows with every burst of connections. It also caches up to 20 KB of freed memory a thread, and serves
//! long answers from the heap, where small allocations above them keep the heap from shrinking. Without unsafe code
//! these settings can only be changed by environment variables, which glibc reads before the program starts.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

/// The variables that glibc reads. Where one of them is set, it stays as it is.
const TUNABLES: &str = "GLIBC_TUNABLES";
const ARENA_MAX: &str = "MALLOC_ARENA_MAX";
/// Marks the process that was executed again: in some processes glibc removes its variables from the environment.
const REEXECUTED: &str = "_LIZM_REEXECUTED";

/// Fewest arenas: with one, threads wait for each other's allocations.
const ARENAS_MIN: usize = 2;
/// Least bytes of an allocation that is mapped by itself, and most that stay free at the top of the heap. It is glibc's
/// own default, which glibc raises at run time unless it is set.
const MAPPED_BYTES: usize = 128 << 10;

/// Executes this program again in the same process, once, with one arena a processor, no cache a thread, and long
/// allocations returned to the kernel when they are freed. Where that fails, the program goes on and needs more memory.
pub(crate) fn reexec_with_malloc_tunables() {
    let is_set = [TUNABLES, ARENA_MAX, REEXECUTED].into_iter().any(|name| env::var_os(name).is_some());
    let mut arguments = env::args_os();
    if !is_set && let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) {
        let arenas = thread::available_parallelism().map_or(ARENAS_MIN, |processors| processors.get().max(ARENAS_MIN));
        let tunables = format!(
            "glibc.malloc.arena_max={arenas}:glibc.malloc.tcache_count=0:\
             glibc.malloc.mmap_threshold={MAPPED_BYTES}:glibc.malloc.trim_threshold={MAPPED_BYTES}"
        );
        let mut command = Command::new(program);
        let error = command.arg0(name).args(arguments).env(TUNABLES, tunables).env(REEXECUTED, "1").exec();
        eprintln!("lizm: cannot execute itself again with an allocator that keeps less memory: {error}");
    }
}

//! How early a thread gets its turn while all cores are busy. Never how much of the processor it gets.

/// The shortest slice that Linux grants, in nanoseconds.
const SLICE_MIN: u64 = 100_000;

/// Asks the kernel for short slices for the calling thread: it is run sooner after it has woken up, for a shorter
/// time at a turn, with the same share of the processor as before. Needs no privilege. Linux before 6.12 takes no
/// notice, and a kernel that refuses leaves the thread as it was.
///
/// Source: `sched(7)` and `sched_setattr(2)`; the request for a slice is part of EEVDF (I. Stoica and H. Abdel-Wahab,
/// "Earliest Eligible Virtual Deadline First", 1995), where a shorter request has an earlier deadline.
#[expect(unsafe_code, reason = "the standard library has no words for the scheduler")]
pub fn ask_for_short_slices() {
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("a few dozen bytes");
    // SAFETY: sched_attr is plain numbers, for which zeros are a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes, which the struct has; 0 is the calling thread.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if read != 0 || attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return;
    }
    attributes.size = size;
    attributes.sched_runtime = SLICE_MIN;
    // SAFETY: the kernel only reads the struct, whose size it is told.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn a_thread_that_asked_keeps_its_policy_and_its_weight() {
        let read = || {
            // SAFETY: as in `ask_for_short_slices`.
            let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
            let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap();
            // SAFETY: as in `ask_for_short_slices`.
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
            attributes
        };
        std::thread::spawn(move || {
            let before = read();
            ask_for_short_slices();
            let after = read();

            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            // 0 where the kernel does not know slices.
            assert!([0, SLICE_MIN].contains(&after.sched_runtime), "{}", after.sched_runtime);
        })
        .join()
        .unwrap();
    }
}

//! A file mapped into memory, as words that others may change at any time. The only unsafe code of this room.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// A mapped file; unmapped when it is dropped, while the file stays.
pub struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory belongs to this value alone, and is only ever seen as atomics.
#[expect(unsafe_code, reason = "a pointer to atomics may cross threads")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer to atomics may be shared by threads")]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of `file`, which must be at least so long and never be made shorter.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(file: &File, words: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at a place that the kernel chooses overlaps nothing.
        #[expect(unsafe_code, reason = "mapping memory is")]
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), words * 8, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, words })
    }

    /// The words. Of a mapping that is not writable, only loads are allowed.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mmap gave so many bytes at the start of a page, any bits are a valid word, and all access is atomic.
        #[expect(unsafe_code, reason = "see above")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.words)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the slices that were given out borrow this value, so none is left.
        #[expect(unsafe_code, reason = "unmapping memory is")]
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}

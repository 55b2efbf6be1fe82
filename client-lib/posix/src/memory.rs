//! What programs point to, for those who give them these calls in C.

use crate::error::{Errno, Result};
use crate::sockaddr;
use libc::{iovec, sockaddr as SockAddr, socklen_t};
use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::slice;

/// Vectors at once (`IOV_MAX`).
const MOST_VECTORS: usize = 1024;

/// The bytes of a program's address.
///
/// # Safety
/// `address` points to `length` bytes, or is null.
pub unsafe fn address<'a>(address: *const SockAddr, length: socklen_t) -> &'a [u8] {
    if address.is_null() {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts(address.cast(), length as usize) }
}

/// Writes an address where a program wants it, cut to the room there is; the length that is told
/// is the whole one's.
///
/// # Errors
/// `EFAULT` for a length that is missing.
///
/// # Safety
/// `out` and `length` are null, or point to what `accept(2)` takes.
pub unsafe fn put_address(
    out: *mut SockAddr,
    length: *mut socklen_t,
    value: SocketAddr,
) -> Result<()> {
    if out.is_null() {
        return Ok(());
    }
    if length.is_null() {
        return Err(Errno::FAULT);
    }
    let bytes = sockaddr::bytes(value);
    // SAFETY: `length` says how many bytes `out` has.
    unsafe {
        let room = (*length as usize).min(bytes.len());
        out.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), room);
        *length = bytes.len() as socklen_t;
    }
    Ok(())
}

/// A program's buffer to write into.
///
/// # Errors
/// `EFAULT` for null with a size.
///
/// # Safety
/// `buffer` points to `size` bytes that may be written.
pub unsafe fn bytes_mut<'a>(buffer: *mut c_void, size: usize) -> Result<&'a mut [u8]> {
    match (buffer.is_null(), size) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Errno::FAULT),
        // SAFETY: as the caller says.
        (false, _) => Ok(unsafe { slice::from_raw_parts_mut(buffer.cast(), clamp(size)) }),
    }
}

/// A program's buffer to read.
///
/// # Errors
/// `EFAULT` for null with a size.
///
/// # Safety
/// `buffer` points to `size` bytes.
pub unsafe fn bytes<'a>(buffer: *const c_void, size: usize) -> Result<&'a [u8]> {
    match (buffer.is_null(), size) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Errno::FAULT),
        // SAFETY: as the caller says.
        (false, _) => Ok(unsafe { slice::from_raw_parts(buffer.cast(), clamp(size)) }),
    }
}

/// A slice is not longer than this.
fn clamp(size: usize) -> usize {
    size.min(isize::MAX as usize)
}

/// The vectors of a call.
///
/// # Safety
/// `vectors` points to `number` vectors.
unsafe fn vectors<'a>(vectors: *const iovec, number: usize) -> Result<&'a [iovec]> {
    match (vectors.is_null(), number) {
        (_, 0) => Ok(&[]),
        (_, more) if more > MOST_VECTORS => Err(Errno::INVAL),
        (true, _) => Err(Errno::FAULT),
        // SAFETY: as the caller says.
        (false, _) => Ok(unsafe { slice::from_raw_parts(vectors, number) }),
    }
}

/// A program's buffers to read.
///
/// # Errors
/// `EINVAL` for more than 1024 vectors, `EFAULT` for null.
///
/// # Safety
/// `from` points to `number` vectors, which point to bytes.
pub unsafe fn slices<'a>(from: *const iovec, number: usize) -> Result<Vec<IoSlice<'a>>> {
    // SAFETY: as the caller says.
    let vectors = unsafe { vectors(from, number) }?;
    let slice = |vector: &iovec| {
        // SAFETY: as the caller says.
        unsafe { bytes(vector.iov_base, vector.iov_len) }.map(IoSlice::new)
    };
    vectors.iter().map(slice).collect()
}

/// A program's buffers to write into.
///
/// # Errors
/// `EINVAL` for more than 1024 vectors, `EFAULT` for null.
///
/// # Safety
/// `from` points to `number` vectors, which point to bytes that may be written.
pub unsafe fn slices_mut<'a>(from: *const iovec, number: usize) -> Result<Vec<IoSliceMut<'a>>> {
    // SAFETY: as the caller says.
    let vectors = unsafe { vectors(from, number) }?;
    let slice = |vector: &iovec| {
        // SAFETY: as the caller says. If buffers overlap, their bytes are what was written last.
        unsafe { bytes_mut(vector.iov_base, vector.iov_len) }.map(IoSliceMut::new)
    };
    vectors.iter().map(slice).collect()
}

//! A body in chunks (RFC 9112, 7.1), decoded in place as it comes. Extensions and trailers are dropped.

use super::head::find_end;
use crate::api::Reply;

/// Longest line before a chunk in bytes, extensions included; nobody sends any.
const LINE_BYTES_MAX: usize = 256;

/// How far a body is decoded.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Bytes of the body so far.
    pub(super) len: usize,
    next: Next,
}

/// What comes next.
#[derive(Debug, Default)]
enum Next {
    #[default]
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    DataEnd,
    /// Trailers, behind the end of the last line before a chunk.
    Trailers,
    Nothing,
}

impl Chunks {
    /// Decodes what has come. From `start` on `bytes` holds the body so far, and behind it what is not decoded yet. Tells
    /// whether the body is whole.
    ///
    /// # Errors
    /// The reply to a body that is malformed, or longer than `bytes_max`.
    pub(super) fn decode(&mut self, bytes: &mut Vec<u8>, start: usize, bytes_max: usize) -> Result<bool, Reply> {
        let mut read = start + self.len;
        loop {
            let rest = &bytes[read..];
            match self.next {
                Next::Size => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((line_bytes, size))) if is_line(&rest[..line_bytes]) => {
                        let size = usize::try_from(size).unwrap_or(usize::MAX);
                        if size > bytes_max - self.len {
                            return Err(Reply::error(413, &format!("body: longer than {bytes_max} bytes, the limit")));
                        }
                        (self.next, read) = match size {
                            0 => (Next::Trailers, read + line_bytes - 2),
                            size => (Next::Data(size), read + line_bytes),
                        };
                    }
                    Ok(httparse::Status::Partial) if rest.len() <= LINE_BYTES_MAX => break,
                    _ => return Err(self.malformed()),
                },
                Next::Data(size) => {
                    let came = size.min(rest.len());
                    bytes.copy_within(read..read + came, start + self.len);
                    self.len += came;
                    read += came;
                    if came < size {
                        self.next = Next::Data(size - came);
                        break;
                    }
                    self.next = Next::DataEnd;
                }
                Next::DataEnd => {
                    if !b"\r\n".starts_with(&rest[..rest.len().min(2)]) {
                        return Err(self.malformed());
                    }
                    if rest.len() < 2 {
                        break;
                    }
                    read += 2;
                    self.next = Next::Size;
                }
                // With that end they are like a head without its first line.
                Next::Trailers => {
                    let Some(trailers_bytes) = find_end("trailers", rest)? else { break };
                    read += trailers_bytes;
                    self.next = Next::Nothing;
                }
                Next::Nothing => break,
            }
        }
        bytes.drain(start + self.len..read);
        Ok(matches!(self.next, Next::Nothing))
    }

    fn malformed(&self) -> Reply {
        Reply::error(400, &format!("body: after {} bytes of it a chunk is malformed", self.len))
    }
}

/// Whether what httparse takes for the line before a chunk is one. It takes a line without a digit for a size of 0, and an
/// LF alone for a part of an extension. Another parser ends the line there, and so differs on where the request ends.
fn is_line(line: &[u8]) -> bool {
    line.len() <= LINE_BYTES_MAX
        && line.first().is_some_and(u8::is_ascii_hexdigit)
        && line.ends_with(b"\r\n")
        && memchr::memchr(b'\n', line) == Some(line.len() - 1)
}

//! What stands between ureq and its sockets: it passes over interim answers, and finds out who speaks TLS and who does
//! not.

use std::fmt;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};

/// Most interim answers in a row: nobody sends more than a few.
const INTERIM_MAX: u32 = 100;
/// Bytes of a status line up to the status.
const STATUS_LINE: usize = "HTTP/1.1 100".len();

/// TCP, TLS where the URL says https, and the two checks of this module.
pub(super) fn connector() -> impl Connector<()> {
    let tcp = ().chain(TcpConnector::default()).chain(WithPeerCheck);
    #[cfg(feature = "tls")]
    let tcp = tcp.chain(ureq::unversioned::transport::RustlsConnector::default());
    tcp.chain(WithoutInterim)
}

/// A sentence for who reads the error.
#[derive(Debug)]
struct Advice(&'static str);

impl Advice {
    fn error(advice: &'static str) -> Error {
        Error::Other(Box::new(Self(advice)))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Advice {}

#[derive(Debug)]
struct WithPeerCheck;

impl<In: Transport> Connector<In> for WithPeerCheck {
    type Out = PeerCheck<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| PeerCheck { inner, wants_tls: details.needs_tls(), is_known: false }))
    }
}

/// A connection whose first bytes tell whether the peer speaks TLS.
#[derive(Debug)]
struct PeerCheck<In> {
    inner: In,
    wants_tls: bool,
    is_known: bool,
}

impl<In: Transport> Transport for PeerCheck<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let awaited = self.inner.await_input(timeout);
        if self.is_known {
            return awaited;
        }
        let first = self.inner.buffers().input().first().copied();
        self.is_known = first.is_some();
        // The types of a record: change of the cipher, alert, handshake, data.
        let is_tls = first.map(|byte| matches!(byte, 0x14..=0x17));
        match (self.wants_tls, is_tls) {
            (true, Some(false)) => Err(Advice::error("this port does not speak TLS: use http://")),
            (true, None) => {
                Err(Advice::error("this port does not answer to TLS; if it speaks plain HTTP, use http://"))
            }
            (false, Some(true)) => Err(Advice::error("this port speaks TLS: use https://")),
            (true, Some(true)) | (false, _) => awaited,
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[derive(Debug)]
struct WithoutInterim;

impl<In: Transport> Connector<In> for WithoutInterim {
    type Out = FinalAnswers<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| FinalAnswers { inner, is_before_answer: false, interim_count: 0 }))
    }
}

/// A connection without its interim answers (RFC 9110, 15.2): ureq takes one of status 100 that has fields for an error.
#[derive(Debug)]
struct FinalAnswers<In> {
    inner: In,
    /// Whether the input begins with the head of an answer.
    is_before_answer: bool,
    interim_count: u32,
}

impl<In: Transport> FinalAnswers<In> {
    /// Consumes interim answers that are there whole.
    fn pass_over_interim(&mut self) -> Result<(), Error> {
        while self.is_before_answer {
            let input = self.inner.buffers().input();
            if input.len() < STATUS_LINE {
                return Ok(());
            }
            // Status 101 ends HTTP on a connection, and ureq treats it so.
            let status = input.starts_with(b"HTTP/1.").then(|| &input[STATUS_LINE - 3..STATUS_LINE]);
            self.is_before_answer = status.is_some_and(|status| status[0] == b'1' && status != b"101");
            let head_end = input.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = head_end.filter(|_| self.is_before_answer) else { return Ok(()) };
            self.interim_count += 1;
            if self.interim_count > INTERIM_MAX {
                return Err(Advice::error("the server sends interim answers without an end"));
            }
            self.inner.buffers().input_consume(end + 4);
        }
        Ok(())
    }
}

impl<In: Transport> Transport for FinalAnswers<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.is_before_answer, self.interim_count) = (true, 0);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let has_input = self.inner.await_input(timeout)?;
        self.pass_over_interim()?;
        Ok(has_input)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

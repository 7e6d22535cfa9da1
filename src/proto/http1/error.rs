//! What can be wrong with a message, who is to blame, and what to answer.
//!
//! Every variant has a stable `label` for counters; tests compare variants exactly.
use std::fmt;

/// A head that is not made of strict RFC 9112 lines; of client or upstream alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// A line ended by LF without CR.
    BareLf,
    /// CR not followed by LF.
    BareCr,
    /// Empty lines before the start line (one CRLF is tolerated before a request).
    LeadingEmptyLine,
    /// A first byte that cannot begin a start line, such as of a TLS handshake.
    NotHttp,
    /// A start line that does not follow its grammar.
    StartLine,
    /// A request line without version (HTTP/0.9).
    NoVersion,
    /// A version that is not of the form `HTTP/digit.digit`.
    VersionSyntax,
    /// A status that is not three digits from 100 on.
    StatusCode,
    /// A control character in the reason phrase.
    ReasonPhrase,
    /// A byte in the method that is not a token character.
    Method,
    /// A byte in the target that is not printable ASCII, or `#`.
    TargetByte,
    /// A header line that begins with white space after another (obs-fold).
    ObsFold,
    /// White space before the first header.
    SpaceBeforeFirstHeader,
    /// A header line with an empty name.
    EmptyName,
    /// A header line without colon.
    MissingColon,
    /// White space between name and colon.
    SpaceBeforeColon,
    /// A byte in a name that is not a token character.
    NameByte,
    /// NUL or another control character in a value.
    ValueControl,
    /// More than [`MAX_HEADERS`](super::MAX_HEADERS) header lines.
    TooManyHeaders,
    /// More than [`MAX_HEAD_BYTES`](super::MAX_HEAD_BYTES) bytes.
    TooLarge,
    /// Refused by the tokenizer for a reason the line walker does not know; never seen.
    Malformed,
}

/// What is wrong with an authority (Host or absolute-form target).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityFault {
    /// HTTP/1.1 without Host.
    Absent,
    /// More than one Host line.
    Multiple,
    /// Empty, or only a port.
    Empty,
    /// User information (`user@host`).
    UserInfo,
    /// A byte that no host name has, or a malformed IPv6 literal.
    HostByte,
    /// Longer than a DNS name.
    TooLong,
    /// A port that is empty, 0, above 65535, or not plain decimal.
    Port,
    /// Host differs from the authority of an absolute-form target.
    Mismatch,
}

/// Why a client's request head is refused. The client is to blame; answer
/// [`status`](Self::status) and close, because where the next request starts is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Broken line syntax.
    Head(HeadFault),
    /// Bad authority.
    Authority(AuthorityFault),
    /// The request line is longer than [`MAX_REQUEST_LINE_BYTES`](super::MAX_REQUEST_LINE_BYTES).
    TargetTooLong,
    /// The method is longer than [`MAX_METHOD_BYTES`](super::MAX_METHOD_BYTES).
    MethodTooLong,
    /// CONNECT; a reverse proxy is no tunnel.
    Connect,
    /// A well-formed version other than 1.0 and 1.1.
    Version,
    /// A target that is neither origin-form, absolute-form of http(s), nor `*` with OPTIONS.
    TargetForm,
    /// Content-Length is not a plain decimal number, or too large.
    ContentLength,
    /// More than one Content-Length, as lines or as list, equal or not.
    MultipleContentLength,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndChunked,
    /// Transfer-Encoding is empty, has empty members, or names chunked twice.
    TransferEncoding,
    /// More than one Transfer-Encoding line.
    MultipleTransferEncoding,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1: faulty framing).
    TransferEncodingInHttp10,
    /// `Content_Length` or `Transfer_Encoding`: CGI-style backends would read it as framing.
    FramingLookalike,
    /// `Connection` names a header that must not be removed by it.
    ConnectionNamesEssential,
    /// A `Connection` that is not a list of tokens.
    Connection,
    /// TRACE with a body (RFC 9110 section 9.3.8).
    TraceWithBody,
    /// An expectation other than `100-continue`.
    Expectation,
}

/// Why an upstream's response head is refused. The upstream is to blame: answer 502 and close its
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// Broken line syntax.
    Head(HeadFault),
    /// A well-formed version other than 1.0 and 1.1.
    Version,
    /// Content-Length is not a plain decimal number, or too large.
    ContentLength,
    /// More than one Content-Length, equal or not.
    MultipleContentLength,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndChunked,
    /// Transfer-Encoding that is not exactly `chunked`, once, in HTTP/1.1.
    TransferEncoding,
    /// 101 that nobody asked for.
    UnexpectedSwitch,
}

/// What is wrong with chunked coding (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// No digit where the size must be.
    SizeEmpty,
    /// A byte in or after the size that is no hexadecimal digit, `;` or CR.
    SizeByte,
    /// The size is above [`MAX_BODY_LENGTH`](super::MAX_BODY_LENGTH) or has too many digits.
    SizeOverflow,
    /// A control character in an extension.
    ExtensionByte,
    /// Extensions beyond their bounds.
    ExtensionTooLong,
    /// CR not followed by LF, or LF without CR.
    LineEnd,
    /// Data not followed by CRLF.
    DataEnd,
    /// A trailer line with broken syntax.
    Trailer(HeadFault),
    /// A trailer that would frame or route a message.
    ForbiddenTrailer,
    /// The trailer section is above [`MAX_TRAILER_BYTES`](super::MAX_TRAILER_BYTES).
    TrailerTooLarge,
}

/// Why a body cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The sender broke chunked coding.
    Chunk(ChunkFault),
    /// The sender closed before the body ended.
    Truncated,
    /// More bytes were given to an encoder than it announced. A bug of the caller.
    Excess,
}

// === impl HeadFault ===

impl HeadFault {
    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::LeadingEmptyLine => "leading_empty_line",
            Self::NotHttp => "not_http",
            Self::StartLine => "start_line",
            Self::NoVersion => "no_version",
            Self::VersionSyntax => "version_syntax",
            Self::StatusCode => "status_code",
            Self::ReasonPhrase => "reason_phrase",
            Self::Method => "method",
            Self::TargetByte => "target_byte",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeFirstHeader => "space_before_first_header",
            Self::EmptyName => "empty_name",
            Self::MissingColon => "missing_colon",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::NameByte => "name_byte",
            Self::ValueControl => "value_control",
            Self::TooManyHeaders => "too_many_headers",
            Self::TooLarge => "head_too_large",
            Self::Malformed => "malformed",
        }
    }
}

// === impl AuthorityFault ===

impl AuthorityFault {
    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Absent => "host_absent",
            Self::Multiple => "host_multiple",
            Self::Empty => "host_empty",
            Self::UserInfo => "host_userinfo",
            Self::HostByte => "host_byte",
            Self::TooLong => "host_too_long",
            Self::Port => "host_port",
            Self::Mismatch => "host_mismatch",
        }
    }
}

// === impl RequestError ===

impl RequestError {
    /// Status to answer with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Head(HeadFault::TooManyHeaders | HeadFault::TooLarge) => 431,
            Self::MethodTooLong | Self::Connect | Self::TransferCoding => 501,
            Self::Version => 505,
            Self::Expectation => 417,
            _ => 400,
        }
    }

    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Head(fault) => fault.label(),
            Self::Authority(fault) => fault.label(),
            Self::TargetTooLong => "target_too_long",
            Self::MethodTooLong => "method_too_long",
            Self::Connect => "connect",
            Self::Version => "version",
            Self::TargetForm => "target_form",
            Self::ContentLength => "content_length",
            Self::MultipleContentLength => "multiple_content_length",
            Self::LengthAndChunked => "length_and_chunked",
            Self::TransferEncoding => "transfer_encoding",
            Self::MultipleTransferEncoding => "multiple_transfer_encoding",
            Self::TransferCoding => "transfer_coding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::FramingLookalike => "framing_lookalike",
            Self::ConnectionNamesEssential => "connection_names_essential",
            Self::Connection => "connection",
            Self::TraceWithBody => "trace_with_body",
            Self::Expectation => "expectation",
        }
    }
}

impl From<HeadFault> for RequestError {
    fn from(fault: HeadFault) -> Self {
        Self::Head(fault)
    }
}

impl From<AuthorityFault> for RequestError {
    fn from(fault: AuthorityFault) -> Self {
        Self::Authority(fault)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client sent a bad request head: {}", self.label())
    }
}

impl std::error::Error for RequestError {}

// === impl ResponseError ===

impl ResponseError {
    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Head(fault) => fault.label(),
            Self::Version => "version",
            Self::ContentLength => "content_length",
            Self::MultipleContentLength => "multiple_content_length",
            Self::LengthAndChunked => "length_and_chunked",
            Self::TransferEncoding => "transfer_encoding",
            Self::UnexpectedSwitch => "unexpected_switch",
        }
    }
}

impl From<HeadFault> for ResponseError {
    fn from(fault: HeadFault) -> Self {
        Self::Head(fault)
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream sent a bad response head: {}", self.label())
    }
}

impl std::error::Error for ResponseError {}

// === impl ChunkFault ===

impl ChunkFault {
    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::SizeEmpty => "chunk_size_empty",
            Self::SizeByte => "chunk_size_byte",
            Self::SizeOverflow => "chunk_size_overflow",
            Self::ExtensionByte => "chunk_extension_byte",
            Self::ExtensionTooLong => "chunk_extension_too_long",
            Self::LineEnd => "chunk_line_end",
            Self::DataEnd => "chunk_data_end",
            Self::Trailer(_) => "trailer_syntax",
            Self::ForbiddenTrailer => "trailer_forbidden",
            Self::TrailerTooLarge => "trailer_too_large",
        }
    }
}

// === impl BodyError ===

impl BodyError {
    /// Stable name for counters.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Chunk(fault) => fault.label(),
            Self::Truncated => "body_truncated",
            Self::Excess => "body_excess",
        }
    }
}

impl From<ChunkFault> for BodyError {
    fn from(fault: ChunkFault) -> Self {
        Self::Chunk(fault)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad message body: {}", self.label())
    }
}

impl std::error::Error for BodyError {}

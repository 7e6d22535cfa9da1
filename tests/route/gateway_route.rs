//! Attachment, HTTPRoute and GRPCRoute (spec 5.4 to 5.6).

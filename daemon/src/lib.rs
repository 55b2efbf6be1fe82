//! The fourwave daemon: a TCP host stack on AF_XDP.

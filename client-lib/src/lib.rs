//! TcpListener and TcpStream over the fourwave daemon.

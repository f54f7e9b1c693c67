mod urls;

#[cfg(unix)]
mod with_server;

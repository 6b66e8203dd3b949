//! Options of the HTTP servers.

use lizm::receiver::HttpServer;
use std::net::IpAddr;

use super::{Options, parsed};

impl Options {
    /// The server of plain HTTP.
    pub(super) fn http_server(&mut self) -> Result<HttpServer, String> {
        match self.word("--http-server")? {
            #[cfg(feature = "builtin")]
            "builtin" if cfg!(target_os = "linux") => Ok(HttpServer::Builtin),
            "builtin" => {
                Err("option --http-server: builtin needs Linux, and a lizm with the feature builtin".to_owned())
            }
            _ => Ok(HttpServer::TinyHttp),
        }
    }

    /// The proxies that name their clients.
    pub(super) fn trusted_proxies(&mut self) -> Result<Vec<IpAddr>, String> {
        let proxies = self.list("--trust-proxy")?;
        let address = |proxy: &String| parsed::<IpAddr>("--trust-proxy", proxy, "an IP address such as 10.0.0.1");
        proxies.iter().map(address).collect()
    }

    /// The builtin server.
    #[cfg(feature = "builtin")]
    pub(super) fn builtin(&mut self) -> Result<lizm::http::Options, String> {
        let connections_max: usize = self.number("--max-connections")?;
        let per_address = self.optional_number("--max-connections-per-address")?;
        let connections_per_address_max = per_address.unwrap_or(connections_max.div_ceil(4));
        Ok(lizm::http::Options { connections_max, connections_per_address_max })
    }

    /// Refuses the options of a server that this program was built without.
    #[cfg(not(feature = "builtin"))]
    pub(super) fn refuse_builtin(&mut self) -> Result<(), String> {
        for option in ["--max-connections", "--max-connections-per-address"] {
            if self.text(option)?.is_some() {
                return Err(format!("option {option}: this lizm was built without the feature builtin"));
            }
        }
        Ok(())
    }
}

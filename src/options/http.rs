//! Options of the HTTP servers.

use lizm::receiver::HttpServer;
#[cfg(feature = "builtin")]
use std::net::IpAddr;

use super::Options;
#[cfg(feature = "builtin")]
use super::parsed;

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

    /// The builtin server.
    #[cfg(feature = "builtin")]
    pub(super) fn builtin(&mut self) -> Result<lizm::http::Options, String> {
        let connections_max: usize = self.number("--max-connections")?;
        let per_address = self.optional_number("--max-connections-per-address")?;
        let connections_per_address_max = per_address.unwrap_or(connections_max.div_ceil(4));
        let proxies = self.list("--trust-proxy")?;
        let address = |proxy: &String| parsed::<IpAddr>("--trust-proxy", proxy, "an IP address such as 10.0.0.1");
        let trusted_proxies = proxies.iter().map(address).collect::<Result<_, _>>()?;
        Ok(lizm::http::Options { connections_max, connections_per_address_max, trusted_proxies })
    }

    /// Refuses the options of a server that this program was built without.
    #[cfg(not(feature = "builtin"))]
    pub(super) fn refuse_builtin(&mut self) -> Result<(), String> {
        for option in ["--max-connections", "--max-connections-per-address", "--trust-proxy"] {
            if self.text(option)?.is_some() {
                return Err(format!("option {option}: this lizm was built without the feature builtin"));
            }
        }
        Ok(())
    }
}

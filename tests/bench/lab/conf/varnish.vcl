vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "$origin"; }
sub vcl_recv {
  if (req.method == "GET" || req.method == "HEAD") { return (hash); }
  return (pass);
}
sub vcl_hash {
  hash_data(req.url);
  hash_data(req.http.Authorization);
  hash_data(req.http.X-Amp-Exp-User);
  return (lookup);
}
sub vcl_backend_response { set beresp.ttl = 1h; }

-- Posts of two labels each for 1,000 hosts, in turns; with the token that is the first argument, if there is one.
local epoch = os.time()
local host = 0
init = function(arguments)
  if arguments[1] then
    wrk.headers["Authorization"] = "Bearer " .. arguments[1]
  end
end
request = function()
  host = (host + 7) % 1000
  return wrk.format("POST", "/api/perf/host-" .. host .. ".example.org/" .. epoch, nil, '{"cpu": 4.98, "mem": 35.1}')
end

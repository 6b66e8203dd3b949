-- Posts of two labels each for 1,000 hosts, in turns.
local epoch = os.time()
local host = 0
request = function()
  host = (host + 7) % 1000
  return wrk.format("POST", "/api/perf/host-" .. host .. "/" .. epoch, nil, '{"cpu": 4.98, "mem": 35.1}')
end

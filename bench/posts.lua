-- Posts of two labels each, to hosts in turns: FORM HOSTS [TOKEN]. FORM is `sample`, a post to the host's own path, or
-- `line`, a post of one line to /write.
local epoch = os.time()
local form, hosts
-- A prime that does not divide the number of hosts: each has its turn, and none after its neighbour.
local stride = 7919

local threads = 0
setup = function(thread)
  thread:set("number", threads)
  threads = threads + 1
end

init = function(arguments)
  form, hosts = arguments[1], tonumber(arguments[2])
  if arguments[3] then
    wrk.headers["Authorization"] = "Bearer " .. arguments[3]
  end
  -- The two threads are half of the hosts apart, so that neither finds in the cache what the other has just used.
  host = number * hosts / 2
end

request = function()
  host = (host + stride) % hosts
  local name = "host-" .. host .. ".example.org"
  if form == "line" then
    return wrk.format("POST", "/write", nil, "perf,host=" .. name .. " cpu=4.98,mem=35.1 " .. epoch .. "000000000")
  end
  return wrk.format("POST", "/api/perf/" .. name .. "/" .. epoch, nil, '{"cpu": 4.98, "mem": 35.1}')
end
